"""A toy stage without inputs: tables that tests of other stages make up."""
