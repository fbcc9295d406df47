package devid_test

import (
	"bytes"
	"errors"
	"testing"

	"waxseal/measure/devid"
	"waxseal/measure/devid/devidtest"
)

func TestWordAboutAnotherObjectOrNonceIsRefused(t *testing.T) {
	tpm, other := must(devidtest.New())(t), must(devidtest.New())(t)
	iak := parse(t, devid.IAK, tpm.Public(devid.IAK))
	nonce := bytes.Repeat([]byte{5}, 48)
	good := devidtest.Certification(tpm.Public(devid.IDevID))
	good.ExtraData = nonce
	for name, c := range map[string]struct {
		change func(*devidtest.Attest)
		by     devidtest.TPM
		key    devid.Kind
		want   error
	}{
		"genuine":              {by: tpm},
		"over no nonce":        {by: tpm, change: func(a *devidtest.Attest) { a.ExtraData = nil }, want: devid.ErrNonce},
		"over an older nonce":  {by: tpm, change: func(a *devidtest.Attest) { a.ExtraData = bytes.Repeat([]byte{4}, 48) }, want: devid.ErrNonce},
		"over half the nonce":  {by: tpm, change: func(a *devidtest.Attest) { a.ExtraData = nonce[:24] }, want: devid.ErrNonce},
		"about another object": {by: tpm, change: func(a *devidtest.Attest) { a.Name = devidtest.Certification(other.Public(devid.IDevID)).Name }, want: devid.ErrOtherKey},
		"by another TPM":       {by: other, want: devid.ErrSignature},
		"by the IDevID":        {by: tpm, key: devid.IDevID, want: devid.ErrSignature},
		"a quote":              {by: tpm, change: func(a *devidtest.Attest) { a.Type = 0x8018 }, want: devid.ErrCertify},
		"not made by a TPM":    {by: tpm, change: func(a *devidtest.Attest) { a.Magic++ }, want: devid.ErrCertify},
	} {
		a := good
		if c.change != nil {
			c.change(&a)
		}
		if c.key == "" {
			c.key = devid.IAK
		}
		signature := must(c.by.Sign(c.key, a.Bytes()))(t)
		if err := iak.Vouches(good.Name, nonce, a.Bytes(), signature); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want: %v", name, err, c.want)
		}
	}
	signature := must(tpm.Sign(devid.IAK, good.Bytes()))(t)
	idevid := parse(t, devid.IDevID, tpm.Public(devid.IDevID))
	for name, err := range map[string]error{
		"no nonce asked": iak.Vouches(good.Name, nil, good.Bytes(), signature),
		"no name asked":  iak.Vouches(nil, nonce, good.Bytes(), signature),
		"an IDevID":      idevid.Vouches(good.Name, nonce, good.Bytes(), signature),
	} {
		if !errors.Is(err, devid.ErrCertify) {
			t.Errorf("%s: %v, want: %v", name, err, devid.ErrCertify)
		}
	}
}
