//! The part a tensor plays in the network, which decides by what and how fast it is moved.

use backslash_model::{Architecture, is_embedding};

/// The part a tensor plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// An embedding, or the matrix that makes logits: each of its rows belongs to one token or position.
    Embedding,
    /// The matrix of a linear layer.
    Matrix(Layout),
    /// A vector, or a set of vectors that are kept in one tensor.
    Vector,
}

/// How the values of a linear layer's matrix lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    /// Whether the weights of one output are neighbours. In GPT-2 those of one input are.
    pub(super) by_output: bool,
}

impl Role {
    /// The role of a tensor of that name and shape.
    ///
    /// Linear layers and embeddings call their matrix `weight`; the sets of vectors of the golf network, such
    /// as `resid_mix` and `skip_weights`, have names of their own.
    pub(super) fn of(name: &str, shape: &[usize], architecture: Architecture) -> Self {
        let Some((_, "weight")) = name.rsplit_once('.') else { return Self::Vector };
        let [first, others @ ..] = shape else { return Self::Vector };
        if others.is_empty() {
            return Self::Vector;
        }
        if is_embedding(name) {
            return Self::Embedding;
        }
        let rest = others.iter().product();
        Self::Matrix(match architecture {
            Architecture::Gpt2 => Layout { outputs: rest, inputs: *first, by_output: false },
            _ => Layout { outputs: *first, inputs: rest, by_output: true },
        })
    }
}

#[cfg(test)]
mod tests {
    use backslash_model::ModelConfig;

    use super::*;

    #[test]
    fn every_family_has_its_tensors_in_the_right_group() {
        for (architecture, embeddings, matrices) in [
            (Architecture::Golf, 1, 12),
            (Architecture::Decoder, 1, 12),
            (Architecture::Llama, 2, 14),
            (Architecture::Gpt2, 2, 8),
            (Architecture::Bert, 3, 12),
        ] {
            let config = ModelConfig {
                architecture,
                vocabulary_size: 40,
                width: 16,
                layers: 2,
                kv_heads: 4,
                tied_head: architecture != Architecture::Llama,
                ..ModelConfig::default()
            };
            let of = |(name, shape): &(String, Vec<usize>)| Role::of(name, shape, architecture);
            let roles: Vec<Role> = config.layout().iter().map(of).collect();
            let count = |kind: fn(&Role) -> bool| roles.iter().filter(|role| kind(role)).count();
            assert_eq!(count(|role| *role == Role::Embedding), embeddings, "{architecture:?}");
            assert_eq!(count(|role| matches!(role, Role::Matrix(_))), matrices, "{architecture:?}");
        }
    }

    #[test]
    fn sets_of_vectors_are_vectors_and_gpt2_keeps_its_inputs_first() {
        let golf = Architecture::Golf;
        assert_eq!(Role::of("skip_weights", &[32, 512], golf), Role::Vector);
        assert_eq!(Role::of("blocks.0.resid_mix", &[2, 512], golf), Role::Vector);
        assert_eq!(Role::of("model.norm.weight", &[512], Architecture::Llama), Role::Vector);
        let layout = Layout { outputs: 64, inputs: 16, by_output: false };
        let role = Role::of("h.0.mlp.c_fc.weight", &[16, 64], Architecture::Gpt2);
        assert_eq!(role, Role::Matrix(layout));
    }
}
