"""For the tests of people who build on the service: it runs in their own process, on memory, behind a real port."""
