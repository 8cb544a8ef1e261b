"""Run by Alembic on the connection that `engine.Database.upgrade` opened; it also commits."""

from alembic import context

from trunkline.store.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
