package main

// Where the parts of a boot meet. /run is moved into the new root, so what
// stands there is seen by process 1 and by the resident agent.
const (
	runDir      = "/run/waxseal"
	journalDir  = runDir + "/journal"  // the log of what was extended
	contentsDir = runDir + "/contents" // canonical texts by their SHA-256
	resultFile  = runDir + "/boot.json"
	firmwareLog = runDir + "/firmware.tcg" // the firmware's log as the kernel shows it
	ownerFile   = runDir + "/owner-ca.pem" // the owner's trust anchors as measured

	approversFile = runDir + "/approvers.json"       // who may authorise mirrors, as measured
	mirrorsFile   = "/conf/etc/waxseal/mirrors.json" // in the new root: mirrors that are authorised, signed by approvers
	pinDir        = "/sys/fs/bpf/waxseal"

	kernelFirmwareLog = "/sys/kernel/security/tpm0/binary_bios_measurements"

	newRoot  = "/mnt/root"
	rootInit = "/sbin/init"
	stateDir = "/conf/waxseal" // in the new root: the owner's certificates
)
