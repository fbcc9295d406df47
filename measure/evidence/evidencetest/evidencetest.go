// Package evidencetest is a router in software: PCRs, a log, an attestation
// key and the certificates over it, all in memory. It makes evidence that
// evidence.Verify accepts, and lets a test change any part of it.
//
// It is for tests and simulations. It holds no secret of worth, and proves
// nothing about a machine.
package evidencetest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/evidence"
	"waxseal/measure/merkle"
)

// Noon is the time at which all of this happens.
var Noon = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// Authority is a certificate authority.
type Authority struct {
	Key         *ecdsa.PrivateKey
	Certificate *x509.Certificate
}

// NewAuthority returns an authority on P-384. parent may be nil.
func NewAuthority(name string, parent *Authority) (Authority, error) {
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: Noon.AddDate(-5, 0, 0), NotAfter: Noon.AddDate(20, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return Authority{}, err
	}
	if parent == nil {
		parent = &Authority{Key: key, Certificate: template}
	}
	cert, err := parent.Certify(template, key.Public())
	return Authority{key, cert}, err
}

// Certify signs template for public. A template without a serial number of
// its own gets a random one.
func (a Authority) Certify(template *x509.Certificate, public any) (*x509.Certificate, error) {
	if template.SerialNumber == nil {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
		if err != nil {
			return nil, err
		}
		template.SerialNumber = n.Add(n, big.NewInt(1))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Certificate, public, a.Key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Leaf returns a template for a device certificate.
func Leaf(serial string) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: "router", SerialNumber: serial},
		NotBefore: Noon.AddDate(-1, 0, 0), NotAfter: Noon.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

// PEM returns the certificates as texts, in the order given.
func PEM(certs ...*x509.Certificate) []string {
	var out []string
	for _, c := range certs {
		out = append(out, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})))
	}
	return out
}

// Router is a router in software.
type Router struct {
	Serial       string
	Profile      measure.Profile
	Counters     evidence.Counters
	Owner        Authority // signs the oIAK certificate and the TLS certificate
	AK, Identity *ecdsa.PrivateKey
	Certificates evidence.Certificates
	Contents     map[string][]byte
	Log          eventlog.Log

	pcrs map[measure.Alg][]measure.Digest
}

// New returns a router that was switched on and has measured nothing. Its
// attestation key is on curve, its banks are SHA-256 and SHA-384.
func New(serial string, curve elliptic.Curve) (*Router, error) {
	r := &Router{
		Serial: serial, Profile: measure.Waxseal1,
		Counters: evidence.Counters{Clock: 60_000, Reset: 7, Restart: 0, Safe: true, FirmwareVersion: 0x2020_0312},
		Contents: map[string][]byte{},
	}
	r.Reset(measure.SHA256, measure.SHA384)
	var err error
	if r.Owner, err = NewAuthority("owner", nil); err != nil {
		return nil, err
	}
	if r.AK, err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
		return nil, err
	}
	if r.Identity, err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
		return nil, err
	}
	oiak, err := r.Owner.Certify(Leaf(serial), r.AK.Public())
	if err != nil {
		return nil, err
	}
	tls, err := r.Owner.Certify(Leaf(serial), r.Identity.Public())
	if err != nil {
		return nil, err
	}
	r.Certificates = evidence.Certificates{OIAK: PEM(oiak), TLS: PEM(tls)}
	return r, nil
}

// Reset forgets the log and puts the PCRs of banks to their start values.
func (r *Router) Reset(banks ...measure.Alg) { r.StartAt(0, banks...) }

// StartAt is Reset of a TPM that is started at another locality: PCR 0 says
// so, and so does the log.
func (r *Router) StartAt(locality uint8, banks ...measure.Alg) {
	r.Log = eventlog.Log{Banks: banks, StartupLocality: locality}
	if locality > 0 {
		e := eventlog.Event{Type: eventlog.EVNoAction, Data: append([]byte("StartupLocality\x00"), locality)}
		for _, alg := range banks {
			e.Digests = append(e.Digests, measure.Digest{Alg: alg, Sum: make([]byte, alg.Size())})
		}
		r.Log.Events = append(r.Log.Events, e)
	}
	r.pcrs = map[measure.Alg][]measure.Digest{}
	for _, alg := range banks {
		values := make([]measure.Digest, measure.NumPCRs)
		for i := range values {
			values[i] = r.Log.Start(alg, measure.PCR(i))
			if i >= 17 && i <= 22 { // before any dynamic launch
				values[i].Sum = bytes.Repeat([]byte{0xff}, alg.Size())
			}
		}
		r.pcrs[alg] = values
	}
}

// Extend extends one PCR in all banks, without a word in the log.
func (r *Router) Extend(pcr measure.PCR, digests []measure.Digest) error {
	for _, d := range digests {
		v, err := measure.Extend(r.pcrs[d.Alg][pcr], d)
		if err != nil {
			return err
		}
		r.pcrs[d.Alg][pcr] = v
	}
	return nil
}

// Firmware extends what the firmware measures. The digests are those of
// measured, data is what the log says about it.
func (r *Router) Firmware(pcr measure.PCR, typ uint32, measured, data []byte) error {
	e := eventlog.Event{PCR: pcr, Type: typ, Data: data}
	for _, alg := range r.Log.Banks {
		e.Digests = append(e.Digests, measure.Hash(alg, measured))
	}
	r.Log.Events = append(r.Log.Events, e)
	return r.Extend(pcr, e.Digests)
}

// Separators closes PCR 0 to 7.
func (r *Router) Separators() error {
	for pcr := range measure.PCR(8) {
		if err := r.Firmware(pcr, eventlog.EVSeparator, []byte{0, 0, 0, 0}, []byte{0, 0, 0, 0}); err != nil {
			return err
		}
	}
	return nil
}

// Record extends what the agent measures.
func (r *Router) Record(rec measure.Record) error {
	e := measure.Event{Record: rec, Digests: rec.Digests(r.Log.Banks)}
	r.Log.Events = append(r.Log.Events, eventlog.Of(e))
	return r.Extend(rec.PCR, e.Digests)
}

// Measure records content under name, in the PCR of its class.
func (r *Router) Measure(name string, content []byte) error {
	rec, err := r.Profile.Of(name, content)
	if err != nil {
		return err
	}
	return r.Record(rec)
}

// Keep lets content travel with the evidence.
func (r *Router) Keep(content []byte) {
	sum := sha256.Sum256(content)
	r.Contents[fmt.Sprintf("%x", sum)] = content
}

// Start records in which boot the agent measures, and the router's serial.
func (r *Router) Start() error {
	name := evidence.StartName(r.Counters.Reset, r.Counters.Restart)
	if err := r.Measure(name, []byte(name)); err != nil {
		return err
	}
	return r.Measure("identity/serial", []byte(r.Serial))
}

// Cap closes the capped PCRs.
func (r *Router) Cap(name string) error {
	for _, rec := range r.Profile.Cap(name) {
		if err := r.Record(rec); err != nil {
			return err
		}
	}
	return nil
}

// PCR returns the value of a PCR in bank.
func (r *Router) PCR(bank measure.Alg, pcr measure.PCR) []byte { return r.pcrs[bank][pcr].Sum }

// Challenge returns a challenge with a fresh nonce.
func Challenge(bank measure.Alg, pcrs ...measure.PCR) (evidence.Challenge, error) {
	nonce := make([]byte, 32)
	if _, err := rand.Read(nonce); err != nil {
		return evidence.Challenge{}, err
	}
	return evidence.Challenge{Nonce: nonce, Bank: bank, PCRs: pcrs, Issued: Noon, Deadline: Noon.Add(time.Minute)}, nil
}

// Trust returns the trust under which the router's evidence is genuine.
func (r *Router) Trust() evidence.Trust {
	return evidence.Trust{Roots: []*x509.Certificate{r.Owner.Certificate}, Serial: r.Serial, Now: Noon}
}

// AnswerBatched returns the evidence that answers ch as one of the challenges
// of a batch: at index, among others with nonces that are nobody's.
func (r *Router) AnswerBatched(ch evidence.Challenge, index, size int) (evidence.Evidence, error) {
	nonces := make([][]byte, size)
	for i := range nonces {
		sum := sha256.Sum256(fmt.Appendf(ch.Nonce[:len(ch.Nonce):len(ch.Nonce)], "%d", i))
		nonces[i] = sum[:]
	}
	nonces[index] = ch.Nonce
	tree, err := merkle.New(nonces)
	if err != nil {
		return evidence.Evidence{}, err
	}
	of := ch
	of.Nonce = tree.Commitment()
	ev, err := r.Answer(of)
	proof := tree.Proof(index)
	ev.Nonce, ev.Batch = ch.Nonce, &proof
	return ev, err
}

// Answer returns the evidence that answers ch.
func (r *Router) Answer(ch evidence.Challenge) (evidence.Evidence, error) {
	a := r.Attest(ch)
	quoted := a.Encode()
	signature, err := Sign(r.AK, quoted)
	if err != nil {
		return evidence.Evidence{}, err
	}
	ev := evidence.Evidence{
		Nonce: ch.Nonce, Bank: ch.Bank, PCRs: map[measure.PCR][]byte{}, Quoted: quoted, Signature: signature,
		Certificates: r.Certificates, Card: evidence.Card{Role: "active", Serial: r.Serial},
		Received: ch.Issued.Add(time.Second), Contents: r.Contents,
	}
	for _, pcr := range ch.PCRs {
		ev.PCRs[pcr] = r.PCR(ch.Bank, pcr)
	}
	if len(r.Log.Events) > 0 {
		ev.Log, err = eventlog.EncodeCEL(r.Log)
	}
	return ev, err
}
