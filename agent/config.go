package agent

import (
	"context"
	"crypto"
	"log/slog"
	"time"

	"waxseal/agent/attestz"
	"waxseal/agent/challenge"
	"waxseal/agent/delivery"
	"waxseal/agent/enrollz"
	"waxseal/agent/findings"
	"waxseal/agent/quote"
	"waxseal/measure/eventlog"
	"waxseal/measure/wire"
)

// Config is what an agent works with. A device without a TPM leaves Quoter,
// IAK and IDevID nil and says so in Unattested: it is then served by an
// ephemeral certificate and answers no challenge.
type Config struct {
	Listen   string    // TCP address; empty: ":9339"
	RESTCONF string    // TCP address of RFC 9684 over RESTCONF, for example ":8443"; empty: it is not served
	Card     wire.Card // who this device is; all fields filled

	Quoter     quote.Quoter   // the TPM, quoting with the IAK; nil: no TPM
	Tokens     attestz.Signer // signs tokens with the IAK; nil: evidence is answered raw only
	Recorder   quote.Recorder // what was measured; *measure.Recorder. nil: nothing was
	Firmware   eventlog.Log   // the firmware's events; zero where it has left no log
	Unattested string         // why the device cannot attest, for example "no TPM", "boot incomplete"; empty: it can

	IAK        crypto.PublicKey // *ecdsa.PublicKey of the IAK; nil: no key
	IDevID     crypto.Signer    // signs TLS handshakes in the TPM, an ECDSA key; nil: no key
	IAKCert    wire.Chain       // the maker's certificate of the IAK; empty: not provisioned
	IDevIDCert wire.Chain       // the maker's certificate of the IDevID; empty: not provisioned
	Enroller   enrollz.Chip     // proves to an owner which keys are in the TPM; nil: it cannot

	Prover  delivery.Chip // proves at the doorstep that keys are in the TPM; nil: it cannot
	Areas   Areas         // the public areas that are shown there
	EKCerts wire.Chain    // the TPM maker's certificates of its EKs; empty: none

	Findings    *findings.Book        // what the watch finds; nil: nothing is watched
	BeforeQuote func(context.Context) // is called before each quote, for what must be recorded first; nil: there is nothing

	OwnerCA []byte           // PEM of the owner's trust anchors, as measured; empty: the device has no owner
	State   string           // directory on a disk that survives a reboot, for the owner's certificates
	Kept    challenge.Source // contents by SHA-256; nil: none

	Limits Limits           // zero fields: the defaults
	Log    *slog.Logger     // nil: slog.Default()
	Now    func() time.Time // the device's clock; nil: time.Now

	Uptime func() time.Duration // since the device was started; nil: it is told to nobody
}

// Areas are public areas of the TPM's keys, each a TPMT_PUBLIC. One that is
// empty is not in the TPM.
type Areas struct{ EK, IAK, IDevID, SRK []byte }

// Limits bound what strangers can make the agent do. Zero fields take the
// value named.
type Limits struct {
	Connections int           // open at once: 128
	PerPeer     int           // open at once from one address: 32
	DialRate    float64       // new connections of one address per second: 5, in bursts of four seconds' worth
	Handshake   time.Duration // until TLS and HTTP/2 are set up: 10 s
	Streams     uint32        // calls at once on one connection: 16
	Call        time.Duration // for one call, the reading of its request included: 30 s
	AttestRate  float64       // challenges of one address per second: 5, in bursts of four seconds' worth
	ProofRate   float64       // proofs of keys, for one address per second: 1, in bursts of four seconds' worth
	Queue       int           // challenges that may wait for the TPM: 16
	BatchRate   float64       // batched challenges of one address per second: 2,000, in bursts of four seconds' worth
	Batched     int           // batched challenges that may wait for the next quotes: 1,024
	QuoteEvery  time.Duration // from the beginning of one quote for a batch to that of the next: 200 ms
	Silence     time.Duration // until a connection on which no frame arrives must show that it is alive; as long again, at most 20 s, for its answer: 1 min
	Follow      time.Duration // for one call that follows findings, after which the caller asks again: 1 h
	Idle        time.Duration // until a connection without calls is closed: 30 min
	Age         time.Duration // of a connection, whose client certificate is looked at only when it begins: 24 h
	Stop        time.Duration // for calls to end when the agent stops: 5 s
}

func (l Limits) withDefaults() Limits {
	fill(&l.Connections, 128)
	fill(&l.PerPeer, 32)
	fill(&l.DialRate, 5)
	fill(&l.Handshake, 10*time.Second)
	fill(&l.Streams, 16)
	fill(&l.Call, 30*time.Second)
	fill(&l.AttestRate, 5)
	fill(&l.ProofRate, 1)
	fill(&l.Queue, 16)
	fill(&l.BatchRate, 2000)
	fill(&l.Batched, 1024)
	fill(&l.QuoteEvery, 200*time.Millisecond)
	fill(&l.Silence, time.Minute)
	fill(&l.Follow, time.Hour)
	fill(&l.Idle, 30*time.Minute)
	fill(&l.Age, 24*time.Hour)
	fill(&l.Stop, 5*time.Second)
	return l
}

// fill gives a zero value its default.
func fill[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
