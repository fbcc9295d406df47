package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"fmt"
	"time"
)

// identity is what the certificates of a router say together: one serial
// number, one attestation key.
type identity struct {
	serial        string
	key           *ecdsa.PublicKey
	after, before time.Time // validity of all chains
}

// fingerprint hashes all certificate texts, each with its place and length,
// so that an identity that was found good is found again without parsing.
func (c Certificates) fingerprint() [sha256.Size]byte {
	h := sha256.New()
	var buf [512]byte
	b := buf[:]
	for _, chain := range [][]string{c.OIAK, c.TLS, c.IAK, c.IDevID} {
		b[0] = byte(min(len(chain), maxChain+1))
		h.Write(b[:1])
		for _, text := range chain {
			b[0], b[1], b[2], b[3] = byte(len(text)>>24), byte(len(text)>>16), byte(len(text)>>8), byte(len(text))
			h.Write(b[:4])
			for len(text) > 0 {
				n := copy(b, text)
				h.Write(b[:n])
				text = text[n:]
			}
		}
	}
	return [sha256.Size]byte(h.Sum(b[:0]))
}

// identify checks every chain that is there against the roots, and that all
// speak of one router (RFC 9683, section 2.3).
func (t Trust) identify(c Certificates) (identity, error) {
	var id identity
	chains := []struct {
		name  string
		chain []string
		isAK  bool
	}{{"oIAK", c.OIAK, true}, {"IAK", c.IAK, true}, {"TLS", c.TLS, false}, {"IDevID", c.IDevID, false}}
	leaves := map[string]leaf{}
	for _, ch := range chains {
		if len(ch.chain) == 0 {
			continue
		}
		l, err := t.certify(ch.name, ch.chain)
		if err != nil {
			return id, err
		}
		if err := id.join(l, ch.isAK); err != nil {
			return id, fmt.Errorf("%s certificate: %w", ch.name, err)
		}
		leaves[ch.name] = l
	}
	if id.key == nil {
		return id, fmt.Errorf("%w: no certificate of an attestation key", ErrCertificate)
	}
	iak, hasIAK := leaves["IAK"]
	idevid, hasIDevID := leaves["IDevID"]
	if hasIAK && hasIDevID && !bytes.Equal(iak.RawSubject, idevid.RawSubject) {
		return id, fmt.Errorf("%w: IAK and IDevID certificates name different subjects", ErrSerial)
	}
	return id, nil
}

// named returns the identity of a router whose key is known by its public area
// and not by a certificate.
func (t Trust) named(ev Evidence) (identity, error) {
	c := ev.Certificates
	switch {
	case t.Public == nil || t.Serial == "" || len(t.Roots) > 0:
		return identity{}, fmt.Errorf("%w: a public area alone needs the area and the serial number, and no roots", ErrTrust)
	case len(c.OIAK)+len(c.TLS)+len(c.IAK)+len(c.IDevID) > 0:
		return identity{}, fmt.Errorf("%w: it came along, and nobody would look at it", ErrCertificate)
	}
	ak, err := ParseAttestationKey(t.Public)
	if err != nil {
		return identity{}, err
	}
	id := identity{serial: t.Serial, key: ak.Key}
	return id, id.of(t.Serial, ev.Card)
}

// join adds what l says to the identity, or refuses it.
func (id *identity) join(l leaf, isAK bool) error {
	if id.serial != "" && id.serial != l.serial {
		return fmt.Errorf("%w: it says %s, another certificate %s", ErrSerial, Escape(l.serial), Escape(id.serial))
	}
	if id.serial == "" || l.after.After(id.after) {
		id.after = l.after
	}
	if id.serial == "" || l.before.Before(id.before) {
		id.before = l.before
	}
	id.serial = l.serial
	if isAK {
		return id.joinKey(l)
	}
	if id.key != nil && id.key.Equal(l.PublicKey) {
		return fmt.Errorf("%w: the attestation key is used for an identity", ErrKey)
	}
	return identityUse(l.Certificate)
}

func (id *identity) joinKey(l leaf) error {
	if err := attestationUse(l.Certificate); err != nil {
		return err
	}
	key, ok := l.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return fmt.Errorf("%w: attestation key is %T: need ECDSA", ErrKey, l.PublicKey)
	}
	if id.key != nil && !id.key.Equal(key) {
		return fmt.Errorf("%w: oIAK and IAK certificates are of different keys", ErrKey)
	}
	id.key = key
	return nil
}

// valid tells whether all chains, once found good, are so at now.
func (id identity) valid(now time.Time) bool {
	return !now.Before(id.after) && !now.After(id.before)
}

// of tells whether the identity is the expected one, and the one that the
// control card reports.
func (id identity) of(serial string, card Card) error {
	if serial != "" && serial != id.serial {
		return fmt.Errorf("%w: certificates say %s, expected is %s", ErrSerial, Escape(id.serial), Escape(serial))
	}
	reported := card.Serial
	if reported == "" {
		reported = card.ChassisSerial
	}
	if reported != "" && reported != id.serial {
		return fmt.Errorf("%w: certificates say %s, the router reports %s", ErrSerial, Escape(id.serial), Escape(reported))
	}
	return nil
}
