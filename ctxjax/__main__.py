"""`python -m ctxjax` lists the programs."""

PROGRAMS = {
    "prepare": "raw text -> tokenised shards with a vocabulary and a manifest",
    "train": "pretrain or go on pretraining from a config",
    "sweep": "train every run of a config's get_sweep() and choose among them",
    "evaluate": "run a config's evaluators on a checkpoint",
    "predict": "write what a fine-tuned run tells of a split, in the official layout",
    "embed": "write word-aligned vectors of a text file to HDF5 or npz",
    "features": "store what frozen language models make of a tagger's sentences",
    "probe": "what can be read off each layer of frozen models, and what a probe learns by heart",
    "convert": "published weights in and out (BERT, ELMo)",
    "inspect": "what a checkpoint or a prepared corpus holds; needs no device",
    "compare": "figures of runs side by side, and whether a difference may be chance",
    "plan": "parameters, memory, FLOPs and time of a config before launch; --topology compiles for a TPU slice",
    "report": "render run records as tables and plots",
}


def main() -> None:
    import ctxjax

    print(f"ctxjax {ctxjax.__version__}: the programs, each with --help\n")
    for name, what in PROGRAMS.items():
        print(f"  python -m ctxjax.{name:<9} {what}")


if __name__ == "__main__":
    main()
