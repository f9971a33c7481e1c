"""What must hold before a figure may be published: Great Expectations suites as code."""
