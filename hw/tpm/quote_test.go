package tpm_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha512"
	"math/big"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure"
)

func TestQuoteCoversExactlyWhatWasAsked(t *testing.T) {
	d := tpmtest.Provisioned(t)
	nonce := bytes.Repeat([]byte{7}, 32)
	pcrs := []measure.PCR{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15}
	for _, bank := range d.Banks() {
		attest, sig, err := d.Quote(t.Context(), tpm.IAK, nonce, bank, pcrs)
		if err != nil {
			t.Fatal(err)
		}
		checkSignature(t, d, attest, sig)
		a, err := tpm2.Unmarshal[tpm2.TPMSAttest](attest)
		if err != nil {
			t.Fatal(err)
		}
		info, err := a.Attested.Quote()
		if err != nil {
			t.Fatal(err)
		}
		values, err := d.ReadPCRs(t.Context(), bank, pcrs)
		if err != nil {
			t.Fatal(err)
		}
		h := sha512.New384() // of the signing scheme, whatever the bank is
		for _, pcr := range pcrs {
			h.Write(values[pcr])
		}
		if !bytes.Equal(info.PCRDigest.Buffer, h.Sum(nil)) {
			t.Errorf("%v: PCR digest is not the one of the values", bank)
		}
		counters, err := d.Counters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if a.ClockInfo.ResetCount != counters.ResetCount || a.ClockInfo.RestartCount != counters.RestartCount {
			t.Errorf("quote has counters %d.%d, ReadClock %d.%d: they are scrambled", a.ClockInfo.ResetCount,
				a.ClockInfo.RestartCount, counters.ResetCount, counters.RestartCount)
		}
	}
}

func checkSignature(t *testing.T, d *tpm.Device, attest, signature []byte) {
	t.Helper()
	pub, _, err := d.Public(t.Context(), tpm.IAK)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := tpm2.Unmarshal[tpm2.TPMTSignature](signature)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := sig.Signature.ECDSA()
	if err != nil {
		t.Fatal(err)
	}
	digest := sha512.Sum384(attest)
	r, s := new(big.Int).SetBytes(ec.SignatureR.Buffer), new(big.Int).SetBytes(ec.SignatureS.Buffer)
	if !ecdsa.Verify(pub, digest[:], r, s) {
		t.Error("signature does not verify")
	}
}

func TestQuoteRefusesWrongQuestions(t *testing.T) {
	d := tpmtest.Provisioned(t)
	nonce := make([]byte, 32)
	some := []measure.PCR{0}
	for name, c := range map[string]struct {
		key   tpm.Key
		nonce []byte
		bank  measure.Alg
		pcrs  []measure.PCR
	}{
		"short nonce":   {tpm.IAK, nonce[:15], measure.SHA384, some},
		"long nonce":    {tpm.IAK, make([]byte, 65), measure.SHA384, some},
		"no PCR":        {tpm.IAK, nonce, measure.SHA384, nil},
		"PCR twice":     {tpm.IAK, nonce, measure.SHA384, []measure.PCR{1, 1}},
		"PCR 24":        {tpm.IAK, nonce, measure.SHA384, []measure.PCR{24}},
		"inactive bank": {tpm.IAK, nonce, measure.SHA512, some},
		"SHA-1":         {tpm.IAK, nonce, measure.SHA1, some},
		"IDevID":        {tpm.IDevID, nonce, measure.SHA384, some},
		"unknown key":   {"LAK", nonce, measure.SHA384, some},
	} {
		if _, _, err := d.Quote(t.Context(), c.key, c.nonce, c.bank, c.pcrs); err == nil {
			t.Errorf("%s: a quote is given", name)
		}
	}
}
