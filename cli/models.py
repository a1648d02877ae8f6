"""`coordinator models serve DIR`: the local model host in the foreground."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli import model_bans, model_check
from coordinator.cli.own_kafka import refuse_held
from coordinator.infra.models.host.confine import TOKEN, scrubbed_environment
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.setting_checks import PORT_MAX
from coordinator.streams.settings import read_settings

app = typer.Typer(no_args_is_help=True, help="Run models on this machine.")


@app.command("serve")
def serve(
    models_dir: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with one folder per model.")],
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=PORT_MAX, help="Port to listen on; default MODEL_RUNNER_NODE_PORT, else 9091."
        ),
    ] = None,
    http_port: Annotated[
        int,
        typer.Option(
            min=0,
            max=PORT_MAX,
            help="Port of GET /models, for the web app's Models page; 0 means any free port.",
        ),
    ] = 8001,
    no_http: Annotated[bool, typer.Option("--no-http", help="Serve no GET /models.")] = False,
    listen: Annotated[
        str,
        typer.Option(
            help="Address to listen on. Requests carry no key, so use only a network that you control."
        ),
    ] = "127.0.0.1",
    announce: Annotated[
        str | None,
        typer.Option(
            help="Address or name under which coordinators reach each model.", show_default="that of --listen"
        ),
    ] = None,
    log_dir: Annotated[Path | None, typer.Option(help="Models' logs; default <data dir>/models.")] = None,
) -> None:
    """Serve the models of a folder to a coordinator, each in a process of its own, until Ctrl-C.

    A model is `DIR/<name>/main.py` with one subclass of the tracker base; `DIR/models.yaml` may name its owners.
    Folders may come and go while it runs; changed code is deployed again. The output of a model is in the log folder.
    `requirements.txt` is not installed: models run in this environment. On Linux each is cut off from the network and
    from others' files and processes, and limited to its share of memory and disk. On other systems, serve only code
    that you trust.

    Example: [bold]coordinator models serve my-models --port 9091[/bold]
    """
    settings = read_settings(os.environ)
    if not models_dir.is_dir():
        raise OperatorError(f"the models folder {models_dir} does not exist: name a folder of models")
    if log_dir is None:
        refuse_held(settings.data_dir, "its own models' logs are there; name another folder with --log-dir")
    command = [
        sys.executable,
        "-Ium",
        "coordinator.infra.models.host",
        "--models",
        str(models_dir),
        "--port",
        str(settings.model_runner_node_port if port is None else port),
        "--crunch",
        settings.crunch_id,
        "--log-dir",
        str(log_dir or settings.data_dir / "models"),
        *("--listen", listen),
        *(["--announce", announce] if announce else []),
        *([] if no_http else ["--http-port", str(http_port)]),
    ]
    sys.stdout.flush()
    secret = settings.model_runner_node_token.get_secret_value()
    token = {TOKEN: secret} if secret else {}
    os.execve(sys.executable, command, scrubbed_environment() | token)  # noqa: S606 - the host takes this process over, its signals and exit code with it


app.command("check")(model_check.check)
app.command("ban")(model_bans.ban)
app.command("readmit")(model_bans.readmit)
