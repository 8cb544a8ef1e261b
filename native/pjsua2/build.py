"""Builds the tuned pjsua2 wheel and installs it into the venv that runs this. scripts/pjsip calls it."""

from builder.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
