"""What a run says and leaves at its end."""

from common.options import Arguments
from common.training.schedule import decay_start, longer_by_wsd


def last_words(args: Arguments, result: str) -> str:
    """Says where the model is, how to evaluate it and, by `wsd`, how to train longer."""
    benchmarks = " --benchmarks sample" if args.dataset_name == "sample" else ""
    text = (
        f"{result}\nThe model is in {args.output_dir}. Evaluate it with\n"
        f"    python evaluate.py --model {args.output_dir}{benchmarks}"
    )
    if (kept := args.output_dir / f"checkpoint-{decay_start(args)}").is_dir():
        text += f"\nThe rate fell since {kept.name}. {longer_by_wsd(f'{kept}')}."
    return text
