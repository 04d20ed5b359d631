"""Command-line options that make a command on painted scenes finish in seconds."""

TINY = [
    *("--data.options", "train=8", "val=3", "short_side=[96, 128]"),
    *("--data.short-side", "96", "128", "--inference.test-short-side", "112"),
    *("--data.workers", "0", "--model.backbone-width", "0.25", "--model.fpn-channels", "16"),
    *("--model.parsing-channels", "16", "--model.parts", "parsing_head.aspp_channels=16", "--model.box-channels", "32"),
    *("--sampling.rpn-top-train", "50", "--inference.rpn-top-test", "20", "--batch-size", "2", "--device", "cpu"),
    *("--run.log-every", "2", "--run.pictures", "1", "--run.save-every", "2"),
]
