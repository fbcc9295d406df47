package delivery

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"waxseal/measure/devid"
	"waxseal/measure/evidence"
	"waxseal/measure/manifest"
)

// judgeKeys holds what the device shows of itself against the manifest. All of
// it can be copied; that the keys are there is proven later.
func (j *judgement) judgeKeys() {
	id, s := j.t.Identity, j.shipment
	j.judge(CheckSerial, j.serial(), "the device and its certificates say "+s.Serial)
	j.judge(CheckEK, same("EK", id.EK, s.EK.Public), "the TPM shows the EK of the manifest")
	j.judgeEKCertificate()
	j.judge(CheckIAK, same("IAK", id.IAK, s.IAK.Public), "the TPM shows the IAK of the manifest")
	j.judge(CheckIDevID, j.idevid(), "the TPM shows the IDevID of the manifest, and its IAK says that it is in the same TPM")
	j.judge(CheckCertificates, j.certificates(), j.certified())
	j.judge(CheckTLS, j.tls(), "this session is with the holder of the IDevID")
}

// same compares public areas. Their names are digests of them, so equal areas
// have equal names (D-19).
func same(what string, shown, shipped []byte) error {
	switch {
	case len(shown) == 0:
		return fmt.Errorf("the device shows no %s", what)
	case !bytes.Equal(shown, shipped):
		return fmt.Errorf("the device shows another %s (digest %.8x…) than was shipped (%.8x…): this is another TPM", what, sha256.Sum256(shown), sha256.Sum256(shipped))
	}
	return nil
}

func (j *judgement) serial() error {
	want := j.shipment.Serial
	for _, said := range []struct{ by, text string }{
		{"the device", j.t.Identity.Card.Serial}, {"its chassis", j.t.Identity.Card.ChassisSerial},
	} {
		if said.text != want {
			return fmt.Errorf("%s says %q: shipped was %q", said.by, said.text, want)
		}
	}
	for _, chain := range []struct {
		name  string
		texts []string
	}{{"IAK", j.t.Identity.IAKCert}, {"IDevID", j.t.Identity.IDevIDCert}} {
		leaf, err := leafOf(chain.texts)
		if err != nil {
			return fmt.Errorf("%s certificate: %w", chain.name, err)
		}
		got, err := evidence.SerialNumber(leaf)
		if err != nil {
			return fmt.Errorf("%s certificate: %w", chain.name, err)
		}
		if got != want {
			return fmt.Errorf("its %s certificate says %q: shipped was %q", chain.name, got, want)
		}
	}
	return nil
}

// idevid tells whether the IDevID is the manifest's, and whether the IAK of the
// manifest says that it is in its TPM.
func (j *judgement) idevid() error {
	if err := same("IDevID", j.t.Identity.IDevID, j.shipment.IDevID.Public); err != nil {
		return err
	}
	if j.t.Proof == nil {
		return errors.New("no word of the IAK that it is in the same TPM: the device gave no proof")
	}
	signed := j.t.Proof.IDevID
	return j.vouched(j.shipment.IDevID.Name, signed.Attest, signed.Signature)
}

// vouched tells whether the manifest's IAK says, on this nonce, that an object
// is in its TPM.
func (j *judgement) vouched(name, attest, signature []byte) error {
	iak, err := devid.Parse(devid.IAK, j.shipment.IAK.Public)
	if err != nil {
		return err
	}
	return iak.Vouches(name, j.t.Request.Nonce, attest, signature)
}

// judgeEKCertificate looks at the certificates of the manifest's EKs. The one
// of P-384 is a second word of the TPM's maker about the same TPM; credentials
// are made for the RSA key.
func (j *judgement) judgeEKCertificate() {
	s := j.shipment
	if s.EK.CertificateSHA256 == nil {
		if len(j.trust.EKCA) > 0 {
			j.note(CheckEKCertificate, Bad, "the manifest names none, so the TPM's maker speaks for nothing")
			return
		}
		j.note(CheckEKCertificate, Skipped, "the manifest names none")
		return
	}
	err := j.ekCertificate(s.EK)
	if err == nil && s.EKP384 != nil && s.EKP384.CertificateSHA256 != nil {
		if err = j.ekCertificate(*s.EKP384); err != nil {
			err = fmt.Errorf("of the EK P-384: %w", err)
		}
	}
	j.judge(CheckEKCertificate, err, j.ekCertified())
}

func (j *judgement) ekCertificate(s manifest.EndorsementKey) error {
	certs, err := certificatesOf(j.t.Identity.EKCerts)
	if err != nil {
		return err
	}
	for _, cert := range certs {
		if sum := sha256.Sum256(cert.Raw); !bytes.Equal(sum[:], s.CertificateSHA256) {
			continue
		}
		ek, err := manifest.ParseEK(s.Public)
		if err != nil {
			return err
		}
		if !sameKey(ek.Key, cert.PublicKey) {
			return errors.New("it is of another key than the EK")
		}
		if len(j.trust.EKCA) == 0 {
			return nil
		}
		return evidence.Leads(cert, j.trust.EKCA, j.t.Received)
	}
	return fmt.Errorf("the device shows %d, and not the one of the manifest", len(certs))
}

func (j *judgement) ekCertified() string {
	if len(j.trust.EKCA) == 0 {
		return "it is the one of the manifest, and of this EK"
	}
	return "it is the one of the manifest, of this EK, and leads to the TPM's maker"
}

// certificates tells whether the maker's certificates are of the manifest's
// keys, name one subject, and lead to the maker's CA if that is known.
func (j *judgement) certificates() error {
	iak, err := j.certificate(devid.IAK, j.t.Identity.IAKCert, j.shipment.IAK.Public)
	if err != nil {
		return fmt.Errorf("of the IAK: %w", err)
	}
	idevid, err := j.certificate(devid.IDevID, j.t.Identity.IDevIDCert, j.shipment.IDevID.Public)
	if err != nil {
		return fmt.Errorf("of the IDevID: %w", err)
	}
	if !bytes.Equal(iak.RawSubject, idevid.RawSubject) {
		return errors.New("those of IAK and IDevID name different subjects")
	}
	return nil
}

func (j *judgement) certificate(kind devid.Kind, chain []string, area []byte) (*x509.Certificate, error) {
	leaf, err := leafOf(chain)
	if err != nil {
		return nil, err
	}
	key, err := devid.Parse(kind, area)
	if err != nil {
		return nil, err
	}
	if !key.Public.Equal(leaf.PublicKey) {
		return nil, errors.New("it is of another key than was shipped")
	}
	if len(j.trust.VendorCA) == 0 {
		return leaf, nil
	}
	return leaf, evidence.Leads(leaf, j.trust.VendorCA, j.t.Received)
}

func (j *judgement) certified() string {
	if len(j.trust.VendorCA) == 0 {
		return "they are of the keys that were shipped"
	}
	return "they are of the keys that were shipped, and lead to the maker"
}

// tls tells whether the session's key is the manifest's IDevID: else the
// answers were fetched from elsewhere (D-24). The certificate around it may be
// the maker's or an owner's.
func (j *judgement) tls() error {
	key, err := devid.Parse(devid.IDevID, j.shipment.IDevID.Public)
	if err != nil {
		return err
	}
	sessions := [][]*x509.Certificate{j.t.Identity.Peer}
	if j.t.Proof != nil {
		sessions = append(sessions, j.t.Proof.Peer)
	}
	for _, session := range sessions {
		if len(session) == 0 {
			return errors.New("the session showed no certificate")
		}
		if !sameKey(key.Public, session[0].PublicKey) {
			return errors.New("this session is with somebody who does not hold the IDevID that was shipped")
		}
	}
	return nil
}

func leafOf(chain []string) (*x509.Certificate, error) {
	if len(chain) == 0 {
		return nil, errors.New("the device shows none")
	}
	return evidence.ParsePEM(chain[0])
}

func sameKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
