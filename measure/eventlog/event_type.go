package eventlog

import "fmt"

// TCG event types (PC Client Platform Firmware Profile, section 10.4.1) that
// this package or its callers look at.
const (
	EVNoAction                 uint32 = 0x00000003 // never extended
	EVSeparator                uint32 = 0x00000004
	EVAction                   uint32 = 0x00000005
	EVEventTag                 uint32 = 0x00000006
	EVSCRTMContents            uint32 = 0x00000007
	EVSCRTMVersion             uint32 = 0x00000008
	EVCompactHash              uint32 = 0x0000000c
	EVIPL                      uint32 = 0x0000000d
	EVEFIVariableDriverConfig  uint32 = 0x80000001
	EVEFIVariableBoot          uint32 = 0x80000002
	EVEFIBootServicesApp       uint32 = 0x80000003
	EVEFIBootServicesDriver    uint32 = 0x80000004
	EVEFIRuntimeServicesDriver uint32 = 0x80000005
	EVEFIGPTEvent              uint32 = 0x80000006
	EVEFIAction                uint32 = 0x80000007
	EVEFIPlatformFirmwareBlob  uint32 = 0x80000008
	EVEFIHandoffTables         uint32 = 0x80000009
	EVEFIPlatformFirmwareBlob2 uint32 = 0x8000000a
	EVEFIHandoffTables2        uint32 = 0x8000000b
	EVEFIVariableBoot2         uint32 = 0x8000000c
	EVEFIGPTEvent2             uint32 = 0x8000000d
	EVEFIHCRTMEvent            uint32 = 0x80000010
	EVEFIVariableAuthority     uint32 = 0x800000e0
	EVEFISPDMFirmwareBlob      uint32 = 0x800000e1
	EVEFISPDMFirmwareConfig    uint32 = 0x800000e2
	EVEFISPDMDevicePolicy      uint32 = 0x800000e3
	EVEFISPDMDeviceAuthority   uint32 = 0x800000e4
)

var typeNames = map[uint32]string{
	0x00000000:                 "EV_PREBOOT_CERT",
	0x00000001:                 "EV_POST_CODE",
	0x00000002:                 "EV_UNUSED",
	EVNoAction:                 "EV_NO_ACTION",
	EVSeparator:                "EV_SEPARATOR",
	EVAction:                   "EV_ACTION",
	EVEventTag:                 "EV_EVENT_TAG",
	EVSCRTMContents:            "EV_S_CRTM_CONTENTS",
	EVSCRTMVersion:             "EV_S_CRTM_VERSION",
	0x00000009:                 "EV_CPU_MICROCODE",
	0x0000000a:                 "EV_PLATFORM_CONFIG_FLAGS",
	0x0000000b:                 "EV_TABLE_OF_DEVICES",
	EVCompactHash:              "EV_COMPACT_HASH",
	EVIPL:                      "EV_IPL",
	0x0000000e:                 "EV_IPL_PARTITION_DATA",
	0x0000000f:                 "EV_NONHOST_CODE",
	0x00000010:                 "EV_NONHOST_CONFIG",
	0x00000011:                 "EV_NONHOST_INFO",
	0x00000012:                 "EV_OMIT_BOOT_DEVICE_EVENTS",
	0x00000013:                 "EV_POST_CODE2",
	EVEFIVariableDriverConfig:  "EV_EFI_VARIABLE_DRIVER_CONFIG",
	EVEFIVariableBoot:          "EV_EFI_VARIABLE_BOOT",
	EVEFIBootServicesApp:       "EV_EFI_BOOT_SERVICES_APPLICATION",
	EVEFIBootServicesDriver:    "EV_EFI_BOOT_SERVICES_DRIVER",
	EVEFIRuntimeServicesDriver: "EV_EFI_RUNTIME_SERVICES_DRIVER",
	EVEFIGPTEvent:              "EV_EFI_GPT_EVENT",
	EVEFIAction:                "EV_EFI_ACTION",
	EVEFIPlatformFirmwareBlob:  "EV_EFI_PLATFORM_FIRMWARE_BLOB",
	EVEFIHandoffTables:         "EV_EFI_HANDOFF_TABLES",
	EVEFIPlatformFirmwareBlob2: "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
	EVEFIHandoffTables2:        "EV_EFI_HANDOFF_TABLES2",
	EVEFIVariableBoot2:         "EV_EFI_VARIABLE_BOOT2",
	EVEFIGPTEvent2:             "EV_EFI_GPT_EVENT2",
	EVEFIHCRTMEvent:            "EV_EFI_HCRTM_EVENT",
	EVEFIVariableAuthority:     "EV_EFI_VARIABLE_AUTHORITY",
	EVEFISPDMFirmwareBlob:      "EV_EFI_SPDM_FIRMWARE_BLOB",
	EVEFISPDMFirmwareConfig:    "EV_EFI_SPDM_FIRMWARE_CONFIG",
	EVEFISPDMDevicePolicy:      "EV_EFI_SPDM_DEVICE_POLICY",
	EVEFISPDMDeviceAuthority:   "EV_EFI_SPDM_DEVICE_AUTHORITY",
}

// TypeName returns the name of a TCG event type, or its number in hex.
func TypeName(t uint32) string {
	if name, ok := typeNames[t]; ok {
		return name
	}
	return fmt.Sprintf("event type 0x%08x", t)
}
