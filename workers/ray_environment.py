"""What Ray reads from the environment when it is imported; apart from ray_session because it must come first."""

import os
import secrets

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A machine that is busy beyond measure is slow, not broken: starting over would only cost it more.
    "RAY_gcs_server_port_wait_time_s": "120",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_health_check_failure_threshold": "20",
    # The service goes first, but training is not starved by whatever else runs (Ray's own choice is 15).
    "RAY_worker_niceness": "5",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a table whatever the verbosity
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's own state is never read again
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


def prepare_environment(address: str) -> None:
    """Set what Ray reads from the environment. Call before anything imports ray; what the operator set stays."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if address:
        known = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
        os.environ.setdefault("RAY_AUTH_MODE", "token" if known else "disabled")
        return
    os.environ.pop("RAY_ADDRESS", None)
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
