"""PostgreSQL: the pool, the templates in it, and the migrations that make its schema."""
