"""The push of a finished run to the Hub: checked before the training, done after it."""

import signal

from common.errors import UserError
from common.exports.checks import check_packages
from common.hub import push_command, push_model
from common.hub_api import check_token
from common.options import Arguments
from common.training.together import Processes


class Push:
    """Push that `--push_to_hub` asks for."""

    def __init__(self, args: Arguments, processes: Processes) -> None:
        """Checks that the push will be possible.

        Raises:
            UserError: The Hub does not accept the token, or a package for `--push_onnx` is missing.
        """
        name = args.hub_model_id or args.output_dir.resolve().name
        self._facts = args.output_dir, name, args.hub_private, args.push_onnx
        self._again = push_command(*self._facts)

        def check() -> None:
            check_token(self._again)
            if args.push_onnx:
                check_packages("onnx", "--push_onnx")

        processes.from_main(check)

    def push(self, stop: signal.Signals | None) -> str:
        """Pushes the model, on the main process.

        Args:
            stop: Signal that came while the last step was validated and saved.

        Returns:
            Address of the model.

        Raises:
            UserError: The run was asked to stop, or the push has failed.
        """
        if stop:
            raise UserError(f"{stop.name}: the model is not pushed. Push it by\n    {self._again}")
        return push_model(*self._facts)
