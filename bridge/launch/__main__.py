"""``python -m bridge.launch``."""

from bridge.launch.command import main

if __name__ == "__main__":
    main()
