//! Uploads up to where their rooms come in: the shell over a store in memory, and over one on the disk.
