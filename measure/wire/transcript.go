package wire

import (
	"crypto/hmac"
	"crypto/sha512"
	"encoding/binary"
	"maps"
	"slices"
)

// What the secrets of the two credentials authenticate. Each has a label of
// its own, so that one proof never stands for the other.
const (
	ProofOfIAK    = "waxseal-delivery-1 IAK"
	ProofOfIDevID = "waxseal-delivery-1 IDevID"
)

// Authenticate returns HMAC-SHA-384 under the secret that was inside of a
// credential, over the whole exchange: what was asked and what p answers to it.
//
// A device never gives the secret itself away: whoever has intercepted a
// credential that somebody else has made for it, as a CA does that certifies
// keys, could have it opened here. And whoever has the secret by other means
// can say nothing with an answer that was heard before.
func (r ProofRequest) Authenticate(label string, secret []byte, p Proof) []byte {
	h := hmac.New(sha512.New384, secret)
	put := func(b []byte) {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
		h.Write(b)
	}
	put([]byte(label))
	put(r.Nonce)
	put(binary.BigEndian.AppendUint16(nil, uint16(r.Bank)))
	for _, b := range [][]byte{r.IAK.Blob, r.IAK.Secret, r.IDevID.Blob, r.IDevID.Secret} {
		put(b)
	}
	put([]byte{byte(len(p.PCRs))})
	for _, pcr := range slices.Sorted(maps.Keys(p.PCRs)) {
		put([]byte{byte(pcr)})
		put(p.PCRs[pcr])
	}
	for _, s := range []Signed{p.Quote, p.SRK, p.IDevID} {
		put(s.Attest)
		put(s.Signature)
	}
	put(p.Log)
	return h.Sum(nil)
}
