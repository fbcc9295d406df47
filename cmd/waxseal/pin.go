package main

import (
	"crypto/ecdsa"
	"path/filepath"

	"waxseal/fleet/challenge"
	"waxseal/fleet/enroll"
	"waxseal/measure/evidence"
)

// enrolledOnly refuses genuine evidence by another key than the router was
// enrolled with. Its certificate is good, but whoever has got hold of the
// owner's CA can issue one: the ledger tells whose key it is.
func enrolledOnly(owner string, r challenge.Result) challenge.Result {
	if r.Evidence == nil || (r.Outcome != challenge.Judged && r.Outcome != challenge.Genuine) {
		return r
	}
	err := isEnrolled(enroll.FileLedger{Dir: filepath.Join(owner, enroll.LedgerDir)}, r.Evidence.Certificates)
	if err == nil {
		return r
	}
	refused := challenge.RefusedResult(err)
	refused.Evidence, refused.Challenge = r.Evidence, r.Challenge
	return refused
}

// isEnrolled looks up the key of certificates that evidence.Verify has found
// good.
func isEnrolled(l enroll.FileLedger, c evidence.Certificates) error {
	for _, chain := range [][]string{c.OIAK, c.IAK} {
		if len(chain) == 0 {
			continue
		}
		cert, err := evidence.ParsePEM(chain[0])
		if err != nil {
			return err
		}
		serial, err := evidence.SerialNumber(cert)
		if err != nil {
			return err
		}
		key, ok := cert.PublicKey.(*ecdsa.PublicKey)
		if !ok {
			return enroll.ErrKey
		}
		return l.Enrolled(serial, key)
	}
	return enroll.ErrKey
}
