"""What the leader board needs beside the package."""
