"""The vault of identities: a schema of its own, empty and shut until HALLMARK_PEOPLE_DATABASE_URL switches it on.

The statements are in `migrations/sql/0011_people.sql`. Nothing of it is in the log, the object store or an export.
"""

from alembic import op

from audit.guards import run_sql

revision = "0011"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql(op.get_bind(), "0011_people")
