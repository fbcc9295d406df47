package enrollz

import (
	"crypto/ecdsa"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"waxseal/measure/wire"
)

const format = "waxseal-enrollment-1"

// maxFile is the largest enrollment file that is read, in bytes.
const maxFile = 1 << 20

// Enrollment is what an owner has installed. The zero value is a device that
// nobody has enrolled.
type Enrollment struct {
	Profile string     // TLS profile that OIDevID was installed for
	OIAK    wire.Chain // the owner's certificate of the IAK
	OIDevID wire.Chain // the owner's certificate of the IDevID; empty: the maker's is used
}

// Enrolled tells whether an owner has enrolled the device.
func (e Enrollment) Enrolled() bool { return len(e.OIAK) > 0 }

type file struct {
	Format  string   `json:"format"`
	Profile string   `json:"profile,omitempty"`
	OIAK    []string `json:"oiak"`
	OIDevID []string `json:"oidevid,omitempty"`
}

func encode(e Enrollment) ([]byte, error) {
	b, err := json.Marshal(file{format, e.Profile, e.OIAK, e.OIDevID}, jsontext.WithIndent("  "))
	return append(b, '\n'), err
}

func decode(b []byte) (Enrollment, error) {
	if len(b) > maxFile {
		return Enrollment{}, fmt.Errorf("enrollment of more than %d bytes", maxFile)
	}
	var f file
	if err := json.Unmarshal(b, &f, json.RejectUnknownMembers(true)); err != nil {
		return Enrollment{}, err
	}
	if f.Format != format {
		return Enrollment{}, fmt.Errorf("format is %q: need %q", f.Format, format)
	}
	e := Enrollment{f.Profile, f.OIAK, f.OIDevID}
	if !e.Enrolled() {
		return Enrollment{}, errors.New("no oiak")
	}
	for _, chain := range []wire.Chain{e.OIAK, e.OIDevID} {
		if _, err := wire.ParseChain(chain.String()); err != nil {
			return Enrollment{}, err
		}
	}
	return e, nil
}

// Keys are the public keys of the device's TPM.
type Keys struct {
	IAK    *ecdsa.PublicKey
	IDevID *ecdsa.PublicKey
}

// check tells whether the certificates are of these keys.
func (k Keys) check(e Enrollment) error {
	if err := certifies(e.OIAK, k.IAK); err != nil {
		return fmt.Errorf("oiak_cert: %w", err)
	}
	if len(e.OIDevID) == 0 {
		return nil
	}
	if err := certifies(e.OIDevID, k.IDevID); err != nil {
		return fmt.Errorf("oidevid_cert: %w", err)
	}
	return nil
}

func certifies(chain wire.Chain, key *ecdsa.PublicKey) error {
	certs, err := chain.Certificates()
	if err != nil {
		return err
	}
	if key == nil || len(certs) == 0 {
		return errors.New("no key to certify")
	}
	if pub, ok := certs[0].PublicKey.(*ecdsa.PublicKey); !ok || !key.Equal(pub) {
		return errors.New("its public key is not this device's")
	}
	return nil
}
