"""`python -m audit.rebuild`: drops the views and folds the whole log again."""

import asyncio
import sys

from audit.app import archive_of
from audit.settings import AuditSettings
from audit.views import rebuild, views_of
from kit.db import Database


async def main() -> None:
    settings = AuditSettings()
    db = Database(settings.database_url.get_secret_value(), name="audit-rebuild", pool=1)
    try:
        async with db.transaction() as tx:
            count = await rebuild(tx, views_of(settings, archive_of(settings)))
    finally:
        await db.close()
    sys.stdout.write(f"audit: views rebuilt from {count} entries\n")


if __name__ == "__main__":
    asyncio.run(main())
