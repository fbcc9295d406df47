// Package wire carries the values of this project over gRPC: attestz and
// enrollz of OpenConfig, and waxseal.v1 beside them.
//
// It is the only importer and exporter of generated protobuf code. What comes
// in from a peer is checked against fixed limits and turned into plain values
// before any caller sees it; a request that breaks a limit is refused here,
// before a TPM could be asked. It never judges evidence, never opens a
// listener and never logs.
package wire

import (
	"crypto/x509"

	"waxseal/measure"
)

// Limits of what is accepted from a peer.
const (
	MaxRequest = 64 << 10        // bytes of one request message to a device
	MaxAnswer  = 4<<20 + 256<<10 // bytes of one answer: a log of 4 MiB and the rest
	MaxContent = 1 << 20         // bytes of one content served by its digest
	MinNonce   = 16              // bytes
	MaxNonce   = 64              // bytes, the size of TPM2B_DATA for SHA-512
	MaxText    = 128             // bytes of a serial, slot, maker or profile name
	MaxReason  = 512             // bytes of a reason in a Status
	MaxChain   = 8               // certificates in a chain
	MaxCert    = 16 << 10        // bytes of one certificate in DER
	Port       = 9339            // TCP port registered for gNMI/gNOI, which attestz and enrollz share
)

// The full names of the calls a device serves.
const (
	MethodAttest        = "/openconfig.attestz.TpmAttestzService/Attest"
	MethodGetIAKCert    = "/openconfig.attestz.TpmEnrollzService/GetIakCert"
	MethodRotateOIAK    = "/openconfig.attestz.TpmEnrollzService/RotateOIakCert"
	MethodRotateAIK     = "/openconfig.attestz.TpmEnrollzService/RotateAIKCert"
	MethodGetIDevIDCSR  = "/openconfig.attestz.TpmEnrollzService/GetIdevidCsr"
	MethodChallenge     = "/openconfig.attestz.TpmEnrollzService/Challenge"
	MethodCardID        = "/openconfig.attestz.TpmEnrollzService/GetControlCardVendorID"
	MethodContentGet    = "/waxseal.v1.Contents/Get"
	MethodContentStatus = "/waxseal.v1.Contents/Status"
	MethodBatchedAttest = "/waxseal.v1.Challenge/Attest"
)

// Methods returns the full name of every call a device serves.
func Methods() []string {
	return []string{
		MethodAttest, MethodGetIAKCert, MethodRotateOIAK, MethodRotateAIK, MethodGetIDevIDCSR,
		MethodChallenge, MethodCardID, MethodContentGet, MethodContentStatus, MethodBatchedAttest,
		MethodIdentify, MethodProve, MethodFollow,
	}
}

// Role is the role of a control card.
type Role int32

// The roles of attestz ControlCardRole.
const (
	NoRole  Role = 0
	Active  Role = 1
	Standby Role = 2
	Chassis Role = 3
)

// String returns the role in lower case.
func (r Role) String() string {
	switch r {
	case NoRole:
		return "none"
	case Active:
		return "active"
	case Standby:
		return "standby"
	case Chassis:
		return "chassis"
	}
	return "unknown"
}

// Selection names a control card by exactly one of its fields.
type Selection struct {
	Role   Role
	Serial string
	Slot   string
}

// Card is the identity that a device reports for one control card.
type Card struct {
	Role          Role
	Serial        string // of the card
	Slot          string
	Maker         string // of the chassis
	Part          string // part number of the chassis
	ChassisSerial string
}

// Chain is a chain of PEM certificates, leaf first.
type Chain []string

// AttestRequest asks a device for a quote.
type AttestRequest struct {
	Select Selection
	Nonce  []byte // MinNonce to MaxNonce bytes; the quote's extraData
	Bank   measure.Alg
	PCRs   []measure.PCR // each at most once
	Format Format        // of the answer; zero: Raw
}

// AttestAnswer is the evidence that a device answers. It is a claim. In a
// format other than Raw all of it is in the token.
type AttestAnswer struct {
	Format    Format
	Token     []byte // empty in format Raw
	Card      Card
	PCRs      map[measure.PCR][]byte // unsigned values in the bank of the request
	Quoted    []byte                 // bare TPMS_ATTEST
	Signature []byte                 // TPMT_SIGNATURE
	OIAK      Chain                  // the owner's certificate of the attestation key
	OIDevID   Chain                  // empty unless the device sent it
	Log       []byte                 // CEL-TLV

	Peer []*x509.Certificate // the certificates of the TLS session, leaf first; set by the client only
}

// IAKAnswer holds the maker's certificates of a device's keys.
type IAKAnswer struct {
	Card   Card
	IAK    Chain
	IDevID Chain
	Atomic bool // oIAK and oIDevID can be rotated in one step

	Peer []*x509.Certificate // as in AttestAnswer
}

// Rotation installs the owner's certificates.
type Rotation struct {
	Profile string // TLS profile; needed where an update has an OIDevID
	Updates []Update
}

// Update holds the owner's certificates of one control card.
type Update struct {
	Select  Selection
	OIAK    Chain
	OIDevID Chain // empty: keep the one there is
}

// Status tells whether a device can attest.
type Status struct {
	Attested bool
	Enrolled bool
	Owned    bool
	Reason   string // why Attested is false
}
