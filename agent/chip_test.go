package agent_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha512"
	"encoding/binary"
	"io"
	"math/big"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure"
	"waxseal/measure/eat/eattest"
)

// chip is what a router needs of its TPM.
type chip interface {
	measure.Extender
	ReadPCRs(ctx context.Context, bank measure.Alg, pcrs []measure.PCR) (map[measure.PCR][]byte, error)
	Quote(ctx context.Context, nonce []byte, bank measure.Alg, pcrs []measure.PCR) (attest, signature []byte, err error)
	SignData(ctx context.Context, data []byte) ([]byte, error)
	counters(t testing.TB) (reset, restart uint32)
	keys(t testing.TB) (iak *ecdsa.PublicKey, idevid crypto.Signer)
}

// softChip is a TPM in memory with keys of its own.
type softChip struct {
	*tpmtest.PCRs
	iak    *ecdsa.PrivateKey
	idevid *countingSigner

	latency     time.Duration
	beforeQuote func()     // called with no lock held
	quoting     sync.Mutex // held during a quote
	overlapped  atomic.Bool
	quotes      atomic.Int32
}

type countingSigner struct {
	*ecdsa.PrivateKey
	signed atomic.Int32
}

func (s *countingSigner) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	s.signed.Add(1)
	return s.PrivateKey.Sign(r, digest, opts)
}

func newSoftChip(t testing.TB) *softChip {
	return &softChip{PCRs: tpmtest.Fake(), iak: newKey(t), idevid: &countingSigner{PrivateKey: newKey(t)}}
}

func (c *softChip) counters(testing.TB) (uint32, uint32) { return 7, 0 }

func (c *softChip) keys(testing.TB) (*ecdsa.PublicKey, crypto.Signer) {
	return &c.iak.PublicKey, c.idevid
}

func (c *softChip) Quote(ctx context.Context, nonce []byte, bank measure.Alg, pcrs []measure.PCR) ([]byte, []byte, error) {
	c.quotes.Add(1)
	if !c.quoting.TryLock() {
		c.overlapped.Store(true)
		c.quoting.Lock()
	}
	defer c.quoting.Unlock()
	time.Sleep(c.latency)
	if c.beforeQuote != nil {
		c.beforeQuote()
	}
	values, err := c.ReadPCRs(ctx, bank, pcrs)
	if err != nil {
		return nil, nil, err
	}
	attest := c.attest(nonce, bank, values)
	signature, err := c.sign(attest)
	return attest, signature, err
}

func (c *softChip) attest(nonce []byte, bank measure.Alg, values map[measure.PCR][]byte) []byte {
	mask := make([]byte, 3)
	h := sha512.New384()
	for pcr := measure.PCR(0); pcr < measure.NumPCRs; pcr++ {
		if v, ok := values[pcr]; ok {
			mask[pcr/8] |= 1 << (pcr % 8)
			h.Write(v)
		}
	}
	return tpm2.Marshal(tpm2.TPMSAttest{
		Magic:           tpm2.TPMGeneratedValue,
		Type:            tpm2.TPMSTAttestQuote,
		QualifiedSigner: tpm2.TPM2BName{Buffer: append([]byte{0, 0x0c}, make([]byte, 48)...)},
		ExtraData:       tpm2.TPM2BData{Buffer: nonce},
		ClockInfo:       tpm2.TPMSClockInfo{Clock: uint64(time.Now().UnixMilli()), ResetCount: 7, Safe: true},
		FirmwareVersion: 1,
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{
			PCRSelect: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgID(bank), PCRSelect: mask}}},
			PCRDigest: tpm2.TPM2BDigest{Buffer: h.Sum(nil)},
		}),
	})
}

// sign returns a TPMT_SIGNATURE: ECDSA, SHA-384, r, s.
func (c *softChip) sign(attest []byte) ([]byte, error) {
	digest := sha512.Sum384(attest)
	r, s, err := ecdsa.Sign(rand.Reader, c.iak, digest[:])
	if err != nil {
		return nil, err
	}
	b := []byte{0x00, 0x18, 0x00, 0x0c}
	for _, n := range []*big.Int{r, s} {
		b = binary.BigEndian.AppendUint16(b, 48)
		b = append(b, n.FillBytes(make([]byte, 48))...)
	}
	return b, nil
}

// SignData is that of a restricted key.
func (c *softChip) SignData(_ context.Context, data []byte) ([]byte, error) {
	return eattest.Sign(c.iak)(data)
}

// realChip is a TPM of package hw/tpm.
type realChip struct{ *tpm.Device }

func (c realChip) Quote(ctx context.Context, nonce []byte, bank measure.Alg, pcrs []measure.PCR) ([]byte, []byte, error) {
	return c.Device.Quote(ctx, tpm.IAK, nonce, bank, pcrs)
}

func (c realChip) counters(t testing.TB) (uint32, uint32) {
	t.Helper()
	n, err := c.Device.Counters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n.ResetCount, n.RestartCount
}

func (c realChip) keys(t testing.TB) (*ecdsa.PublicKey, crypto.Signer) {
	t.Helper()
	iak, _, err := c.Public(t.Context(), tpm.IAK)
	if err != nil {
		t.Fatal(err)
	}
	idevid, err := c.Signer(t.Context(), tpm.IDevID)
	if err != nil {
		t.Fatal(err)
	}
	return iak, idevid
}
