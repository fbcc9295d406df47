package delivery

import (
	"crypto/x509"
	"time"

	"waxseal/fleet/challenge"
	"waxseal/measure/evidence"
)

// Verify says what follows from a saved check, without the device and without
// a network. seal is the buyer's over the file; nil: there is none. Only the
// seal of a buyer whom owners have certified tells an answer that was asked for
// from one that somebody has made up: who makes credentials knows what is
// inside of them, and can answer to himself.
func Verify(data, seal []byte, owners []*x509.Certificate, trust Trust, now time.Time) (Report, error) {
	s, err := Parse(data)
	if err != nil {
		return Report{}, err
	}
	trust.Witness = ""
	if seal != nil && len(owners) > 0 {
		buyer, err := challenge.CheckSeal(data, seal, owners, now)
		if err != nil {
			return badSeal(err, s.Transcript.Received), nil
		}
		trust.Witness = "the seal of " + evidence.Escape(buyer.Subject.String())
	}
	r := Judge(s.Transcript, trust)
	if s.Outcome != Accepted && r.Outcome == Accepted {
		r.refuse(CheckBuyer, "the buyer, who may have known more, did not accept it: %s", first(s.Reasons))
	}
	return r, nil
}

func first(reasons []string) string {
	if len(reasons) == 0 {
		return "without a reason"
	}
	return reasons[0]
}

// badSeal is the report over a file that was changed, or that somebody else
// has sealed. Nothing in it is worth a look.
func badSeal(err error, at time.Time) Report {
	r := newReport(at)
	r.refuse(CheckFresh, "%v", err)
	return r
}
