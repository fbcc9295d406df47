package factory

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
)

// subjectAltName is critical in EK certificates, whose subject may be empty.
// It holds a directory name, which crypto/x509 does not read.
var subjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// What the directory name says of the TPM (TCG EK Credential Profile for TPM
// 2.0, section 3.1.2): maker, model and firmware version.
var modelAttributes = []asn1.ObjectIdentifier{{2, 23, 133, 2, 1}, {2, 23, 133, 2, 2}, {2, 23, 133, 2, 3}}

// checkModel demands that the certificate names the TPM's maker, model and
// version in its subject alternative name. Nothing is decided on what they
// are: a certificate without them was not made for a TPM.
func checkModel(cert *x509.Certificate) error {
	for _, e := range cert.Extensions {
		if e.Id.Equal(subjectAltName) {
			return checkDirectoryName(e.Value)
		}
	}
	return errors.New("the certificate has no subject alternative name")
}

// checkDirectoryName reads GeneralNames (RFC 5280, section 4.2.1.6), in which
// a directory name is [4] EXPLICIT Name.
func checkDirectoryName(der []byte) error {
	var names []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &names); err != nil || len(rest) != 0 {
		return errors.New("the subject alternative name is malformed")
	}
	for _, n := range names {
		if n.Class != asn1.ClassContextSpecific || n.Tag != 4 {
			continue
		}
		var name pkix.RDNSequence
		if rest, err := asn1.Unmarshal(n.Bytes, &name); err != nil || len(rest) != 0 {
			return errors.New("the directory name is malformed")
		}
		return checkAttributes(name)
	}
	return errors.New("the subject alternative name holds no directory name")
}

func checkAttributes(name pkix.RDNSequence) error {
	seen := map[string]int{}
	for _, set := range name {
		for _, a := range set {
			if text, ok := a.Value.(string); ok && text != "" {
				seen[a.Type.String()]++
			}
		}
	}
	for _, id := range modelAttributes {
		if seen[id.String()] != 1 {
			return fmt.Errorf("the directory name has %d attributes %s: need one", seen[id.String()], id)
		}
	}
	return nil
}
