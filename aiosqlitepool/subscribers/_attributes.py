"""The names of the attributes, spans and span events that telemetry shows.

Names that begin with `db.` follow the OpenTelemetry semantic conventions 1.44; the others are the project's own.
"""

from __future__ import annotations

SCOPE = "aiosqlitepool"
SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

# -- attributes

POOL = "db.client.connection.pool.name"
STATE = "db.client.connection.state"
SYSTEM = "db.system.name"
NAMESPACE = "db.namespace"
OPERATION = "db.operation.name"
SUMMARY = "db.query.summary"
QUERY_TEXT = "db.query.text"
RETURNED_ROWS = "db.response.returned_rows"
ERROR_TYPE = "error.type"
ERROR_MESSAGE = "error.message"
ACQUIRE_PATH = "aiosqlitepool.acquire.path"
LABEL = "aiosqlitepool.acquire.label"
QUEUE_TIME = "aiosqlitepool.acquire.queue_time"
ACQUIRE_CREATE_TIME = "aiosqlitepool.acquire.create_time"
CHECK_TIME = "aiosqlitepool.acquire.check_time"
PENDING = "aiosqlitepool.acquire.pending"
LEFT_OUT = "aiosqlitepool.acquire.left_out"
USED = "aiosqlitepool.pool.used"
POOL_MAX = "aiosqlitepool.pool.max"
CONNECTION = "aiosqlitepool.connection.id"
HELD_TIME = "aiosqlitepool.connection.held_time"
HOLDER_ENDED = "aiosqlitepool.holder.ended"
IDLE_TIME = "aiosqlitepool.connection.idle_time"
RESET_TIME = "aiosqlitepool.connection.reset_time"
ROLLED_BACK = "aiosqlitepool.connection.rolled_back"
CLOSE_REASON = "aiosqlitepool.connection.close_reason"
ROLLBACK_CAUSE = "aiosqlitepool.rollback.cause"
TRANSACTION_OUTCOME = "aiosqlitepool.transaction.outcome"
BUSY_KIND = "aiosqlitepool.busy.kind"
CHECKPOINT_RESULT = "aiosqlitepool.checkpoint.result"
STATEMENT_PLACE = "aiosqlitepool.statement.place"
STATEMENT_WAIT_TIME = "aiosqlitepool.statement.wait_time"
STATUS_CODE = "db.response.status_code"
BACKUP_RESULT = "aiosqlitepool.backup.result"
PLAN = "aiosqlitepool.statement.plan"
PLAN_WARNING = "aiosqlitepool.statement.plan_warning"

# The value of an attribute that stands for all values without series of their own.
OTHER = "other"

# -- spans and span events

ACQUIRE_SPAN = "aiosqlitepool.acquire"
CONNECT_SPAN = "aiosqlitepool.connect"
CHECKOUT_SPAN = "aiosqlitepool.checkout"
LEAK_SPAN = "aiosqlitepool.leak"
HEALTH_FAILED = "aiosqlitepool.health_check.failed"
RETURN_ROLLED_BACK = "aiosqlitepool.return.rolled_back"
IDLE_REPLACED = "aiosqlitepool.connection.idle_replaced"
