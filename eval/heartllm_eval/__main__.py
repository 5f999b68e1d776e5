"""`python -m heartllm_eval`."""

from heartllm_eval.cli import main

if __name__ == "__main__":
    main()
