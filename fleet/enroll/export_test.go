package enroll

import (
	"crypto/rsa"

	"waxseal/measure/wire"
)

// CheckProof judges what a router has answered, with no router there.
func CheckProof(serial string, ek *rsa.PublicKey, secret []byte, word wire.HMACAnswer, request wire.CSRAnswer) error {
	iak, err := checkWord(word, secret)
	if err != nil {
		return err
	}
	_, err = proven{serial, ek, iak, inside(word.IAK)}.check(request)
	return err
}

// SameKey is what is accepted of routers without certificates.
var SameKey = sameKey
