//! The device that networks live on.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use burn::tensor::Device;

use crate::ModelError;

static CHOSEN: OnceLock<Opened> = OnceLock::new();

/// A device with its name.
struct Opened {
    device: Device,
    choice: DeviceChoice,
    /// What it is, in words.
    description: String,
}

/// The device that networks live on: the one that [`use_device`] has opened, the CPU before that.
pub fn device() -> Device {
    CHOSEN.get().map_or_else(Device::flex, |opened| opened.device.clone())
}

/// The name of [`device`], never `auto`.
pub fn device_in_use() -> DeviceChoice {
    CHOSEN.get().map_or(DeviceChoice::Cpu, |opened| opened.choice)
}

/// Waits until the [`device`] has done all work that it was given. A failure shows where its results are read.
pub fn wait_for_device() {
    let _ = device().sync();
}

/// Opens a device for all networks of this process, once and before the first of them. Returns what was opened, in words.
///
/// # Errors
/// [`ModelError::Device`] if this build or this machine does not have it, or another one is in use already.
pub fn use_device(choice: DeviceChoice) -> Result<&'static str, ModelError> {
    let opened = open(choice)?;
    let asked = opened.choice;
    let in_use = CHOSEN.get_or_init(|| opened);
    if in_use.choice != asked {
        let reason = format!("this process uses {} already", in_use.choice);
        return Err(ModelError::Device { choice, reason });
    }
    Ok(&in_use.description)
}

/// What can be asked for as a device.
///
/// Written and read as `auto`, `cpu`, or the name of a programming interface for GPUs, with the number of a device
/// behind it where not the first is meant:
///
/// ```
/// use backslash_model::{DeviceChoice, Interface};
///
/// let second = DeviceChoice::Gpu(Interface::Vulkan, 1);
/// assert_eq!("vulkan:1".parse(), Ok(second));
/// assert_eq!(second.to_string(), "vulkan:1");
/// assert!("vulcan".parse::<DeviceChoice>().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU that this build can use and this machine has; without one the CPU.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// A GPU, by its number among those of a programming interface.
    Gpu(Interface, usize),
}

/// A programming interface for GPUs; a build has those whose cargo features it was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// NVIDIA's.
    Cuda,
    /// AMD's.
    Rocm,
    /// Apple's.
    Metal,
    /// Of all vendors.
    Vulkan,
    /// The browser's, on whatever the system has.
    WebGpu,
}

impl Interface {
    /// All of them; `auto` tries them in this order.
    pub const ALL: [Self; 5] = [Self::Cuda, Self::Rocm, Self::Metal, Self::Vulkan, Self::WebGpu];

    /// Its name, which is that of the cargo feature too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Rocm => "rocm",
            Self::Metal => "metal",
            Self::Vulkan => "vulkan",
            Self::WebGpu => "webgpu",
        }
    }

    /// Devices that it reaches on this machine; `None` where the build does not have it.
    fn devices(self) -> Option<Vec<Device>> {
        #[cfg(feature = "gpu")]
        use burn::tensor::DeviceType;
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda => Some(Device::enumerate(DeviceType::Cuda).into_iter().collect()),
            #[cfg(feature = "rocm")]
            Self::Rocm => Some(Device::enumerate(DeviceType::Rocm).into_iter().collect()),
            #[cfg(feature = "metal")]
            Self::Metal => Some(Device::enumerate(DeviceType::Metal).into_iter().collect()),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Some(Device::enumerate(DeviceType::Vulkan).into_iter().collect()),
            #[cfg(feature = "webgpu")]
            Self::WebGpu => Some(Device::enumerate(DeviceType::WebGpu).into_iter().collect()),
            #[allow(unreachable_patterns, reason = "a build may have all of them")]
            _ => None,
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu(interface, 0) => f.write_str(interface.name()),
            Self::Gpu(interface, number) => write!(f, "{}:{number}", interface.name()),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => return Ok(Self::Auto),
            "cpu" => return Ok(Self::Cpu),
            _ => {}
        }
        let (name, number) = text.split_once(':').unwrap_or((text, "0"));
        let interface = Interface::ALL.into_iter().find(|interface| interface.name() == name);
        match (interface, number.parse()) {
            (Some(interface), Ok(number)) => Ok(Self::Gpu(interface, number)),
            _ => Err("expected auto, cpu, cuda, rocm, metal, vulkan or webgpu, the number of a device behind \
                      it where not the first is meant, as in vulkan:1"
                .to_owned()),
        }
    }
}

fn open(choice: DeviceChoice) -> Result<Opened, ModelError> {
    let failed = |reason: String| ModelError::Device { choice, reason };
    match choice {
        DeviceChoice::Cpu => Ok(Opened::new(Device::flex(), choice)),
        DeviceChoice::Auto => first_gpu().map_or_else(|| open(DeviceChoice::Cpu), Ok),
        DeviceChoice::Gpu(interface, number) => {
            let name = interface.name();
            let devices = interface.devices().ok_or_else(|| {
                failed(format!("this build does not have it: build with `--features {name}`"))
            })?;
            let found = devices.len();
            let device = devices.into_iter().nth(number).ok_or_else(|| {
                failed(format!("this machine shows {found} such devices; is the driver installed?"))
            })?;
            Ok(Opened::new(device, choice))
        }
    }
}

/// The first device that is a card; one that only imitates a card is slower than the CPU.
fn first_gpu() -> Option<Opened> {
    Interface::ALL.into_iter().find_map(|interface| {
        let devices = interface.devices()?;
        let number = devices.iter().position(is_card)?;
        let choice = DeviceChoice::Gpu(interface, number);
        Some(Opened::new(devices[number].clone(), choice))
    })
}

impl Opened {
    fn new(device: Device, choice: DeviceChoice) -> Self {
        let description = match name(&device) {
            Some(name) => format!("{choice} ({name})"),
            None => choice.to_string(),
        };
        Self { device, choice, description }
    }
}

#[cfg(feature = "gpu")]
fn is_card(device: &Device) -> bool {
    device.identity().is_some_and(|identity| identity.physical.is_some())
}

#[cfg(not(feature = "gpu"))]
fn is_card(_: &Device) -> bool {
    false
}

#[cfg(feature = "gpu")]
fn name(device: &Device) -> Option<String> {
    device.identity().map(|identity| identity.name)
}

#[cfg(not(feature = "gpu"))]
fn name(_: &Device) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_as_they_are_written() {
        let mut choices = vec![DeviceChoice::Auto, DeviceChoice::Cpu];
        for interface in Interface::ALL {
            choices.extend([0, 1, 12].map(|number| DeviceChoice::Gpu(interface, number)));
        }
        for choice in choices {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cpu:0", "auto:1", "vulkan:x"] {
            assert!(wrong.parse::<DeviceChoice>().unwrap_err().contains("vulkan:1"), "{wrong}");
        }
    }

    #[test]
    fn what_a_build_does_not_have_is_said_with_the_feature_that_adds_it() {
        let missing = Interface::ALL.into_iter().filter(|interface| interface.devices().is_none());
        for interface in missing {
            let error = use_device(DeviceChoice::Gpu(interface, 0)).unwrap_err().to_string();
            assert!(error.contains(&format!("--features {}", interface.name())), "{error}");
        }
    }
}
