package manifest

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Parts of a secret, in characters of five bits each: 125 bits that nobody
// guesses, and 15 by which a slip of the pen is told from a wrong secret.
const (
	secretRandom = 25
	secretCheck  = 3
	secretGroup  = 4 // characters between two hyphens
)

// alphabet is Crockford's base 32: without I, L, O and U.
const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// ErrTypo means that a text is no secret that anybody was given.
var ErrTypo = errors.New("secret is mistyped")

// Secret is the secret of one shipment. The maker prints it once for the
// buyer, sends it by another way than the device, and keeps only its hash.
type Secret struct{ text string } // secretRandom and secretCheck characters of the alphabet

// NewSecret draws a secret from rand.
func NewSecret(rand io.Reader) (Secret, error) {
	b := make([]byte, secretRandom)
	if _, err := io.ReadFull(rand, b); err != nil {
		return Secret{}, fmt.Errorf("draw a secret: %w", err)
	}
	for i := range b {
		b[i] = alphabet[b[i]&31]
	}
	return Secret{string(b) + checksum(string(b))}, nil
}

// ParseSecret reads a secret as people write it: in any case, with or without
// hyphens and spaces, with O for 0 and I or L for 1.
func ParseSecret(text string) (Secret, error) {
	const room = 4 * (secretRandom + secretCheck)
	if len(text) > room {
		return Secret{}, fmt.Errorf("%w: it has %d characters", ErrTypo, len(text))
	}
	plain := strings.NewReplacer("-", "", " ", "", "O", "0", "I", "1", "L", "1").Replace(strings.ToUpper(text))
	if len(plain) != secretRandom+secretCheck {
		return Secret{}, fmt.Errorf("%w: it has %d characters: need %d", ErrTypo, len(plain), secretRandom+secretCheck)
	}
	for i := range len(plain) {
		if strings.IndexByte(alphabet, plain[i]) < 0 {
			return Secret{}, fmt.Errorf("%w: character %d is none that a secret has", ErrTypo, i+1)
		}
	}
	if checksum(plain[:secretRandom]) != plain[secretRandom:] {
		return Secret{}, fmt.Errorf("%w: its last %d characters do not fit the others", ErrTypo, secretCheck)
	}
	return Secret{plain}, nil
}

// checksum is made of bits that the random part determines: it says nothing
// more about it, and helps nobody to guess.
func checksum(random string) string {
	sum := sha256.Sum256([]byte("waxseal-secret-check-1\x00" + random))
	check := make([]byte, secretCheck)
	for i := range check {
		check[i] = alphabet[sum[i]&31]
	}
	return string(check)
}

// Text returns the secret for the one who is meant to read it.
func (s Secret) Text() string {
	var groups []string
	for at := 0; at < len(s.text); at += secretGroup {
		groups = append(groups, s.text[at:min(at+secretGroup, len(s.text))])
	}
	return strings.Join(groups, "-")
}

// String hides the secret from logs and errors.
func (s Secret) String() string { return "(secret)" }

// GoString hides the secret as String does.
func (s Secret) GoString() string { return "(secret)" }

// HashSecret returns what a manifest says of a secret: SHA-384 over the domain,
// the serial number and the secret. The secret has 125 bits, so the hash need
// not be slow; two devices with one secret do not show it.
func HashSecret(secret Secret, serial string) Hex {
	h := sha512.New384()
	fmt.Fprintf(h, "waxseal-shipment-secret-1\x00%d\x00%s%s", len(serial), serial, secret.text)
	return h.Sum(nil)
}

// Knows tells, in constant time, whether the secret is the one of the shipment.
func (s Shipment) Knows(secret Secret) bool {
	return secret.text != "" && subtle.ConstantTimeCompare(HashSecret(secret, s.Serial), s.SecretHash) == 1
}

// ChallengeNonce is what the delivery check asks the device to quote: an
// HMAC-SHA-384 under the secret over the domain, 32 fresh random bytes and the
// digest of the manifest. Only who has the secret can foresee or recognise it,
// and an answer to it is one for this manifest. The device learns nothing of
// the secret from it.
func ChallengeNonce(secret Secret, fresh [32]byte, manifest [sha512.Size384]byte) []byte {
	mac := hmac.New(sha512.New384, []byte(secret.text))
	mac.Write([]byte("waxseal-delivery-nonce-1\x00"))
	mac.Write(fresh[:])
	mac.Write(manifest[:])
	return mac.Sum(nil)
}
