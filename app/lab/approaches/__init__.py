"""A hundred requests for one key that nobody holds, by ways to protect what is behind."""
