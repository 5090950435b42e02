"""SQL is the truth: tables, repositories, migrations. Imports only schemas."""
