//! Files to tensors.

use std::fs::File;
use std::io::{Cursor, Read, Seek};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use backslash_codec::{CodecError, FileReader, FloatType, Limits, Tensor, TensorInfo, read_bytes};
use numpy::PyArray1;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use rayon::prelude::*;

use crate::errors;
use crate::progress::Progress;

/// Name, shape and safetensors type; no type where the tensor is quantised.
type Info = (String, Vec<usize>, Option<&'static str>);

/// An open file.
#[pyclass(frozen, module = "backslash._native")]
pub(crate) struct Reader {
    path: PathBuf,
    limits: Limits,
    file: Mutex<Option<FileReader<File>>>,
}

/// The elements of a tensor.
enum Elements {
    Weights(Vec<f32>),
    Bytes(&'static str, Vec<u8>),
}

#[pymethods]
impl Reader {
    /// Opens a file and checks header and directory.
    #[new]
    fn open(py: Python<'_>, path: PathBuf, max_memory: u64) -> PyResult<Self> {
        let limits = Limits { max_memory };
        let file = py
            .detach(|| FileReader::open(&path, limits))
            .map_err(|error| errors::reading(&path, error))?;
        Ok(Self { path, limits, file: Mutex::new(Some(file)) })
    }

    /// The tensors, in file order.
    fn tensors(&self) -> PyResult<Vec<Info>> {
        let info =
            |TensorInfo { name, shape, dtype }| (name, shape, dtype.map(|dtype| dtype.name()));
        self.with(|file| Ok(file.tensors().into_iter().map(info).collect()))
    }

    /// The metadata.
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Vec<(String, Bound<'py, PyBytes>)>> {
        let values = py.detach(|| {
            self.with(|file| {
                let keys = file.metadata_keys();
                let value = |key: String| Ok((key.clone(), file.metadata(&key)?));
                keys.into_iter().map(value).collect::<Result<Vec<_>, CodecError>>()
            })
        })?;
        Ok(values.into_iter().map(|(key, value)| (key, PyBytes::new(py, &value))).collect())
    }

    /// One tensor: (safetensors type, 1-dimensional array of weights or bytes).
    fn tensor<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        keep_bf16: bool,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let elements = py.detach(|| {
            let known =
                self.with(|file| Ok(file.tensors().iter().any(|info| info.name == name)))?;
            if !known {
                return Err(errors::missing(&self.path, "tensor", name));
            }
            self.with(|file| read(file, name, keep_bf16, self.limits))
        })?;
        to_python(py, elements)
    }

    /// All tensors, decoded on all threads after the hash of the whole file has been checked.
    fn load<'py>(
        &self,
        py: Python<'py>,
        keep_bf16: bool,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let progress = Progress::new(progress);
        let elements = py.detach(|| self.load_all(keep_bf16, &progress))?;
        elements.into_iter().map(|elements| to_python(py, elements)).collect()
    }

    /// Lets go of the file.
    fn close(&self) {
        *self.lock() = None;
    }
}

impl Reader {
    fn lock(&self) -> MutexGuard<'_, Option<FileReader<File>>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        act: impl FnOnce(&mut FileReader<File>) -> Result<T, CodecError>,
    ) -> PyResult<T> {
        match self.lock().as_mut() {
            Some(file) => act(file).map_err(|error| errors::reading(&self.path, error)),
            None => {
                let path = self.path.display();
                Err(PyValueError::new_err(format!("{path} is closed: use it inside `with`")))
            }
        }
    }

    fn load_all(&self, keep_bf16: bool, progress: &Progress) -> PyResult<Vec<Elements>> {
        let Self { path, limits, .. } = self;
        let failed = |error| errors::reading(path, error);
        let bytes = read_bytes(path, limits).map_err(failed)?;
        let open = || FileReader::new(Cursor::new(bytes.as_slice()), path, *limits);
        let mut whole = open().map_err(failed)?;
        whole.verify_content().map_err(failed)?;
        let tensors = whole.tensors();
        let needed = tensors.iter().map(weight_bytes).fold(0_u64, u64::saturating_add);
        if needed > limits.max_memory {
            let (place, limit) = ("all tensors".to_owned(), limits.max_memory);
            return Err(failed(CodecError::LimitExceeded { place, needed, limit }));
        }
        let (done, total) = (AtomicU64::new(0), tensors.iter().map(count).sum());
        tensors
            .par_iter()
            .map_init(open, |reader, info| {
                let reader = match reader {
                    Ok(reader) => reader,
                    Err(_) => unreachable!("it has been opened before"),
                };
                let elements = read(reader, &info.name, keep_bf16, *limits).map_err(failed)?;
                let done = done.fetch_add(count(info), Ordering::Relaxed) + count(info);
                progress.tell(done, Some(total), &info.name)?;
                Ok(elements)
            })
            .collect()
    }
}

/// Weights of a quantised tensor, or of one in BF16 where NumPy is to hold it; the bytes of all others.
fn read<R: Read + Seek>(
    file: &mut FileReader<R>,
    name: &str,
    keep_bf16: bool,
    limits: Limits,
) -> Result<Elements, CodecError> {
    let info = file.tensors().into_iter().find(|info| info.name == name);
    let info = info.expect("callers know the names");
    match info.dtype {
        Some(dtype) if keep_bf16 || dtype != FloatType::BF16 => {
            let Tensor::Raw(tensor) = file.tensor(name)? else { unreachable!("it has a type") };
            Ok(Elements::Bytes(dtype.name(), tensor.bytes))
        }
        _ => {
            let (needed, limit) = (weight_bytes(&info), limits.max_memory);
            let mut weights = Vec::new();
            // A file may promise more weights than there is memory for.
            if needed > limit || weights.try_reserve_exact((needed / 4) as usize).is_err() {
                return Err(CodecError::LimitExceeded { place: name.to_owned(), needed, limit });
            }
            file.weights(name, |piece| {
                weights.extend_from_slice(piece);
                Ok::<_, CodecError>(())
            })?;
            Ok(Elements::Weights(weights))
        }
    }
}

/// Elements of a tensor.
fn count(info: &TensorInfo) -> u64 {
    info.shape.iter().product::<usize>() as u64
}

/// Bytes that a tensor takes as f32.
fn weight_bytes(info: &TensorInfo) -> u64 {
    count(info).saturating_mul(4)
}

fn to_python(py: Python<'_>, elements: Elements) -> PyResult<Bound<'_, PyTuple>> {
    match elements {
        Elements::Weights(weights) => ("F32", PyArray1::from_vec(py, weights)).into_pyobject(py),
        Elements::Bytes(dtype, bytes) => (dtype, PyArray1::from_vec(py, bytes)).into_pyobject(py),
    }
}
