"""What alembic runs around every migration, on the connection and in the transaction that `migrations.schema` gives. Nothing imports it."""

from alembic import context

from db.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
