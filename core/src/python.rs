//! The extension module `vmvisor_image.bzip2._core`; its types are declared in `_core.pyi`.
//!
//! The data of a `bytes` is worked on where it is, as nothing can change it; that of any other buffer is copied first,
//! as another thread may change it while the GIL is released. No panic passes: it is a `Failed`, and the caller has
//! libbz2 decode the block.

use std::borrow::Cow;
use std::sync::Mutex;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyList};

use crate::{Error, Magic, Segment, guarded};

pyo3::create_exception!(_core, DamagedBlock, PyException, "The block is damaged.");
pyo3::create_exception!(_core, TruncatedBlock, PyException, "The data ends within the block.");
pyo3::create_exception!(_core, RandomisedBlock, PyException, "The block is of the randomised kind.");
pyo3::create_exception!(_core, Failed, PyException, "The decoder itself is at fault.");

/// Bytes of a run of a byte that is not zero: they are there once, however long the run is.
const SHARED: usize = 1 << 20;
/// Bytes from which memory of their own, apart from `malloc`'s, is worth its pages.
const WORTH_A_MAP: usize = 1 << 16;

fn bytes_of<'py>(data: &'py Bound<'py, PyAny>) -> PyResult<Cow<'py, [u8]>> {
    match data.cast::<PyBytes>() {
        Ok(bytes) => Ok(Cow::Borrowed(bytes.as_bytes())),
        Err(_) => Ok(Cow::Owned(PyBuffer::<u8>::get(data)?.to_vec(data.py())?)),
    }
}

/// Decodes blocks; any number of threads may use one, each has memory of its own while it does.
#[pyclass(frozen, module = "vmvisor_image.bzip2._core")]
struct Decoder {
    /// Memory that nobody uses now. Where its lock is held, by a thread that may not even be there after a fork, new
    /// memory is taken instead of waiting.
    idle: Mutex<Vec<crate::Decoder>>,
    /// Gives a writable buffer of so many bytes.
    allocate: Py<PyAny>,
}

/// What `decode` gives: end bit, CRC, size, bytes held, segments.
type Decoded<'py> = (usize, u32, u64, usize, Bound<'py, PyList>);

#[pymethods]
impl Decoder {
    #[new]
    fn new(allocate: Py<PyAny>) -> Self {
        Decoder { idle: Mutex::new(Vec::new()), allocate }
    }

    /// Decode the block that starts at a bit of the data.
    fn decode<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'py, PyAny>,
        start_bit: usize,
        level: usize,
    ) -> PyResult<Decoded<'py>> {
        let data = bytes_of(data)?;
        let idle = self.idle.try_lock().ok().and_then(|mut idle| idle.pop());
        let decoded = py.detach(|| {
            guarded(|| {
                let mut decoder = idle.unwrap_or_default();
                let decoded = decoder.decode(&data, start_bit, level).map(|block| (block.end_bit, block.crc));
                (decoder, decoded)
            })
        });
        let (mut decoder, decoded) = decoded.map_err(Failed::new_err)?;
        let result = decoded.map_err(to_exception).and_then(|(end_bit, crc)| {
            let block = decoder.last(end_bit, crc);
            let (held, segments) = self.to_segments(py, &block)?;
            Ok((end_bit, crc, block.size(), held, segments))
        });
        decoder.trim();
        if let Ok(mut idle) = self.idle.try_lock() {
            idle.push(decoder);
        }
        result
    }
}

impl Decoder {
    /// A block's segments, and how many bytes they take: `bytes`, what was allocated, or an `int` for so many zeros.
    fn to_segments<'py>(&self, py: Python<'py>, block: &crate::Block) -> PyResult<(usize, Bound<'py, PyList>)> {
        let segments = PyList::empty(py);
        let mut held = 0;
        for segment in block.segments {
            match *segment {
                Segment::Bytes { start, end } => {
                    let bytes = &block.bytes[start..end];
                    if bytes.iter().all(|&byte| byte == 0) {
                        segments.append(PyInt::new(py, bytes.len()))?;
                    } else {
                        segments.append(self.to_object(py, bytes)?)?;
                        held += bytes.len();
                    }
                }
                Segment::Run { byte: 0, count } => segments.append(PyInt::new(py, count))?,
                Segment::Run { byte, count } => {
                    let (whole, rest) = (count as usize / SHARED, count as usize % SHARED);
                    if whole > 0 {
                        let shared = self.to_object(py, &vec![byte; SHARED])?;
                        for _ in 0..whole {
                            segments.append(&shared)?;
                        }
                        held += SHARED;
                    }
                    if rest > 0 {
                        segments.append(self.to_object(py, &vec![byte; rest])?)?;
                        held += rest;
                    }
                }
            }
        }
        Ok((held, segments))
    }

    fn to_object<'py>(&self, py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        if bytes.len() < WORTH_A_MAP {
            return Ok(PyBytes::new(py, bytes).into_any());
        }
        let memory = self.allocate.bind(py).call1((bytes.len(),))?;
        PyBuffer::<u8>::get(&memory)?.copy_from_slice(py, bytes)?;
        Ok(memory)
    }
}

fn to_exception(error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::Truncated => TruncatedBlock::new_err(message),
        Error::Randomised => RandomisedBlock::new_err(message),
        _ => DamagedBlock::new_err(message),
    }
}

/// The bits, ascending, at which a magic that lies within the data starts, in one of its first bytes.
#[pyfunction]
fn find_magic(py: Python<'_>, data: &Bound<'_, PyAny>, magic: u64, starts: usize) -> PyResult<Vec<usize>> {
    let magic = match magic {
        crate::BLOCK_MAGIC => Magic::Block,
        crate::END_MAGIC => Magic::End,
        _ => return Err(PyValueError::new_err("neither of the two magics")),
    };
    let data = bytes_of(data)?;
    let found = py.detach(|| guarded(|| crate::find(&data, magic)));
    let mut found = found.map_err(Failed::new_err)?;
    found.retain(|bit| bit / 8 < starts);
    Ok(found)
}

/// The CRC of a block of these bytes.
#[pyfunction]
fn crc(py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<u32> {
    let data = bytes_of(data)?;
    py.detach(|| guarded(|| crate::crc(&data))).map_err(Failed::new_err)
}

#[pymodule(gil_used = false)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("DamagedBlock", py.get_type::<DamagedBlock>())?;
    module.add("TruncatedBlock", py.get_type::<TruncatedBlock>())?;
    module.add("RandomisedBlock", py.get_type::<RandomisedBlock>())?;
    module.add("Failed", py.get_type::<Failed>())?;
    module.add_class::<Decoder>()?;
    module.add_function(wrap_pyfunction!(find_magic, module)?)?;
    module.add_function(wrap_pyfunction!(crc, module)?)
}
