"""What JupyterLab is given by the command that starts it."""

from __future__ import annotations

from pathlib import Path

from workspace_world import write_workspace

from toolkit.app.services import lab_environment

KEPT = {
    "PATH": "/usr/bin",
    "HOME": "/home/ana",
    "LANG": "C.UTF-8",
    "SSH_AUTH_SOCK": "/run/ssh",
    "TOKENIZERS_PARALLELISM": "false",
    "JUPYTER_TOKEN": "the-persons-own",
    "TOOLKIT_TOKEN": "of-a-team-gateway",
    "INDEX": "https://packages.example/simple",
}
TAKEN = {
    "OPENAI_API_KEY": "sk-1",
    "HF_TOKEN": "hf-1",
    "AZURE_OPENAI_KEY": "k-1",
    "ORDERS_LOGIN": "named by data.yaml",
    "REPORTS_URL": "postgresql://ana:a-long-password@db/reports",
}


def test_credentials_stay_with_the_gateway(tmp_path: Path) -> None:
    """What tells by its name, what the registry names, and passwords in addresses; nothing else."""
    workspace = write_workspace(tmp_path)
    (workspace.registry / "data.yaml").write_text(
        "sources:\n  orders: {kind: sql, url: 'postgresql://db/o', password_env: ORDERS_LOGIN}\n"
    )
    assert lab_environment(workspace, KEPT | TAKEN) == KEPT
