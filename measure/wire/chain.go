package wire

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
)

// ParseChain splits PEM text into its certificates. It accepts nothing but
// CERTIFICATE blocks without headers and white space between them, at most
// MaxChain of at most MaxCert bytes. Empty text is an empty chain.
func ParseChain(text string) (Chain, error) {
	if len(text) > MaxChain*MaxCert*2 {
		return nil, fmt.Errorf("%w: certificate chain of %d bytes: at most %d", ErrInvalid, len(text), MaxChain*MaxCert*2)
	}
	var chain Chain
	for rest := bytes.TrimSpace([]byte(text)); len(rest) > 0; {
		var block *pem.Block
		if !bytes.HasPrefix(rest, []byte("-----BEGIN CERTIFICATE-----")) {
			return nil, fmt.Errorf("%w: certificate chain: text outside of CERTIFICATE blocks", ErrInvalid)
		}
		block, rest = pem.Decode(rest)
		if block == nil || block.Type != "CERTIFICATE" || len(block.Headers) != 0 || len(block.Bytes) > MaxCert {
			return nil, fmt.Errorf("%w: certificate %d of the chain is not a PEM block of at most %d bytes", ErrInvalid, len(chain), MaxCert)
		}
		if len(chain) == MaxChain {
			return nil, fmt.Errorf("%w: certificate chain: more than %d certificates", ErrInvalid, MaxChain)
		}
		chain = append(chain, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes})))
		rest = bytes.TrimSpace(rest)
	}
	return chain, nil
}

// ChainOf returns the chain of certificates, leaf first.
func ChainOf(certs ...*x509.Certificate) Chain {
	var chain Chain
	for _, c := range certs {
		chain = append(chain, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})))
	}
	return chain
}

// Certificates parses the chain, leaf first.
func (c Chain) Certificates() ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for i, text := range c {
		block, rest := pem.Decode([]byte(text))
		if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) != 0 {
			return nil, fmt.Errorf("certificate %d of the chain is not one PEM block", i)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of the chain: %w", i, err)
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

// String returns the PEM text of the chain, leaf first.
func (c Chain) String() string { return strings.Join(c, "") }
