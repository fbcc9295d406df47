package eat

import (
	"fmt"
	"slices"

	"waxseal/measure"
	"waxseal/measure/cbor"
)

// COSE (RFC 9052, RFC 9053, RFC 9360, RFC 9596).
const (
	tagSign1    = 18
	contextSign = "Signature1" // RFC 9052, section 4.4

	headerAlgorithm = 1
	headerType      = 16 // RFC 9596, section 2
	headerChain     = 33 // x5chain (RFC 9360, section 2)

	algCWT = -35 // ES384 (RFC 9053, section 2.1)
)

// cwt returns the token as COSE_Sign1 with its tag, before its signature.
func (t Token) cwt() (unsigned, error) {
	payload, err := t.payloadCBOR()
	if err != nil {
		return unsigned{}, err
	}
	protected := cbor.AppendMap(nil,
		cbor.Pair{Key: cbor.Int(headerAlgorithm), Value: cbor.Int(algCWT)},
		cbor.Pair{Key: cbor.Int(headerType), Value: cbor.Text(typeCWT)},
		cbor.Pair{Key: cbor.Int(headerChain), Value: chainItem(t.Chain)},
	)
	return unsigned{sigStructure(protected, payload), func(signature []byte) []byte {
		b := cbor.AppendArray(cbor.AppendTag(nil, tagSign1), 4)
		b = cbor.AppendBytes(b, protected)
		b = cbor.AppendMap(b) // nothing is unprotected
		return cbor.AppendBytes(cbor.AppendBytes(b, payload), signature)
	}}, nil
}

// sigStructure is what the signature covers (RFC 9052, section 4.4).
func sigStructure(protected, payload []byte) []byte {
	b := cbor.AppendText(cbor.AppendArray(nil, 4), contextSign)
	return cbor.AppendBytes(cbor.AppendBytes(cbor.AppendBytes(b, protected), nil), payload)
}

// chainItem is COSE_X509: one certificate as it is, several as an array.
func chainItem(chain [][]byte) []byte {
	if len(chain) == 1 {
		return cbor.Bytes(chain[0])
	}
	b := cbor.AppendArray(nil, len(chain))
	for _, der := range chain {
		b = cbor.AppendBytes(b, der)
	}
	return b
}

func (t Token) payloadCBOR() ([]byte, error) {
	key, err := t.key()
	if err != nil {
		return nil, err
	}
	ueid, err := UEID(key)
	if err != nil {
		return nil, err
	}
	pairs := []cbor.Pair{
		{Key: cbor.Int(keyIssued), Value: cbor.Int(t.Issued)},
		{Key: cbor.Int(keyNonce), Value: cbor.Bytes(t.Nonce)},
		{Key: cbor.Int(keyUEID), Value: cbor.Bytes(ueid)},
		{Key: cbor.Int(keyProfile), Value: cbor.Text(Profile)},
		{Key: cbor.Int(keySubmods), Value: cbor.AppendMap(nil, cbor.Pair{Key: cbor.Text(tpmModule), Value: t.tpmCBOR()})},
		{Key: cbor.Int(keySwname), Value: cbor.Text(Software)},
		{Key: cbor.Int(keyCard), Value: t.cardCBOR()},
	}
	if m := model(t.Card); m != nil {
		pairs = append(pairs, cbor.Pair{Key: cbor.Int(keyModel), Value: cbor.Bytes(m)})
	}
	return cbor.AppendMap(nil, pairs...), nil
}

func (t Token) tpmCBOR() []byte {
	var pcrs []cbor.Pair
	for pcr, v := range t.PCRs {
		pcrs = append(pcrs, cbor.Pair{Key: cbor.Int(int64(pcr)), Value: cbor.Bytes(v)})
	}
	return cbor.AppendMap(nil,
		cbor.Pair{Key: cbor.Int(keyAttest), Value: cbor.Bytes(t.Quoted)},
		cbor.Pair{Key: cbor.Int(keySignature), Value: cbor.Bytes(t.Signature)},
		cbor.Pair{Key: cbor.Int(keyBank), Value: cbor.Int(int64(t.Bank))},
		cbor.Pair{Key: cbor.Int(keyPCRs), Value: cbor.AppendMap(nil, pcrs...)},
		cbor.Pair{Key: cbor.Int(keyLog), Value: cbor.Bytes(t.Log)},
	)
}

func (t Token) cardCBOR() []byte {
	var pairs []cbor.Pair
	for _, f := range cardFields(&t.Card) {
		if *f.text != "" {
			pairs = append(pairs, cbor.Pair{Key: cbor.Int(f.key), Value: cbor.Text(*f.text)})
		}
	}
	return cbor.AppendMap(nil, pairs...)
}

// parseCWT reads a COSE_Sign1 with its tag (RFC 9052, section 4.2).
func parseCWT(b []byte) (Signed, error) {
	r, err := cbor.NewReader(b)
	if err != nil {
		return Signed{}, fmt.Errorf("%w: %w", ErrForm, err)
	}
	r.Tag(tagSign1)
	fields := r.Array()
	protected := r.Bytes()
	if r.Map() != 0 || fields != 4 {
		return Signed{}, fmt.Errorf("%w: not COSE_Sign1 whose headers are all protected", ErrAlgorithm)
	}
	payload, signature := r.Bytes(), r.Bytes()
	if err := r.Done(); err != nil {
		return Signed{}, fmt.Errorf("%w: %w", ErrForm, err)
	}
	t := Token{}
	if err := t.readProtected(protected); err != nil {
		return Signed{}, err
	}
	if err := t.readCBOR(payload); err != nil {
		return Signed{}, err
	}
	return Signed{t, sigStructure(protected, payload), signature}, nil
}

// readProtected reads the protected headers. An unknown one, critical ones
// (crit) and keys (kid, COSE_Key) are refused, and so is every algorithm but one.
func (t *Token) readProtected(b []byte) error {
	r, err := cbor.NewReader(b)
	if err != nil {
		return fmt.Errorf("%w: header: %w", ErrAlgorithm, err)
	}
	alg, typ := int64(0), ""
	for range r.Map() {
		switch key := r.Int(); key {
		case headerAlgorithm:
			alg = r.Int()
		case headerType:
			typ = r.Text()
		case headerChain:
			t.Chain = readChain(r)
		default:
			return fmt.Errorf("%w: header %d", ErrAlgorithm, key)
		}
	}
	if err := r.Done(); err != nil || alg != algCWT || typ != typeCWT {
		return fmt.Errorf("%w: alg %d, typ %q: need %d and %s (%v)", ErrAlgorithm, alg, typ, algCWT, typeCWT, err)
	}
	return nil
}

func readChain(r *cbor.Reader) [][]byte {
	if !r.IsArray() {
		return [][]byte{r.Bytes()}
	}
	var chain [][]byte
	for range r.Array() {
		chain = append(chain, r.Bytes())
	}
	return chain
}

func (t *Token) readCBOR(b []byte) error {
	r, err := cbor.NewReader(b)
	if err != nil {
		return fmt.Errorf("%w: claims: %w", ErrForm, err)
	}
	for range r.Map() {
		switch key := r.Int(); key {
		case keyIssued:
			t.Issued = r.Int()
		case keyNonce:
			t.Nonce = r.Bytes()
		case keyUEID, keyModel: // made from others: Parse compares
			r.Bytes()
		case keyProfile, keySwname:
			r.Text()
		case keySubmods:
			t.readSubmods(r)
		case keyCard:
			t.readCard(r)
		default:
			return fmt.Errorf("%w: claim %d is unknown", ErrForm, key)
		}
	}
	if err := r.Done(); err != nil {
		return fmt.Errorf("%w: claims: %w", ErrForm, err)
	}
	return nil
}

// readSubmods reads the only submodule. What is left unread fails at the end.
func (t *Token) readSubmods(r *cbor.Reader) {
	if r.Map() != 1 || r.Text() != tpmModule {
		return
	}
	for range r.Map() {
		switch r.Int() {
		case keyAttest:
			t.Quoted = r.Bytes()
		case keySignature:
			t.Signature = r.Bytes()
		case keyBank:
			t.Bank = measure.Alg(r.Int())
		case keyPCRs:
			t.readPCRs(r)
		case keyLog:
			t.Log = r.Bytes()
		}
	}
}

func (t *Token) readPCRs(r *cbor.Reader) {
	t.PCRs = map[measure.PCR][]byte{}
	for range min(r.Map(), measure.NumPCRs) {
		pcr := r.Int()
		t.PCRs[measure.PCR(pcr)] = r.Bytes()
	}
}

func (t *Token) readCard(r *cbor.Reader) {
	fields := cardFields(&t.Card)
	for range r.Map() {
		key := r.Int()
		i := slices.IndexFunc(fields, func(f cardField) bool { return f.key == key })
		if text := r.Text(); i >= 0 {
			*fields[i].text = text
		}
	}
}
