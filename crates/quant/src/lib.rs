//! Float matrices to integer codes and steps, and the exporters of others that ours is compared with.

pub mod golf;
