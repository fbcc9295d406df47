package sealed

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
)

// MaxKeyFile is the largest file of keys that is read, in bytes.
const MaxKeyFile = 16 << 10

// ErrKeyFile means that a file is not one of keys as this package writes it.
var ErrKeyFile = errors.New("not a file of signing keys")

// Trust is whom a reader believes: one public key of each algorithm, of one
// signer. It comes from a file that the reader has from elsewhere than the
// sealed file.
type Trust struct {
	ecdsa *ecdsa.PublicKey
	mldsa *mldsa87.PublicKey
}

// Keys are the private keys of one signer.
type Keys struct {
	ecdsa *ecdsa.PrivateKey
	mldsa *mldsa87.PrivateKey // made from its seed, and has it still
}

// NewKeys makes keys from the randomness of rand.
func NewKeys(rand io.Reader) (Keys, error) {
	classic, err := ecdsa.GenerateKey(elliptic.P384(), rand)
	if err != nil {
		return Keys{}, fmt.Errorf("make signing keys: %w", err)
	}
	var seed [mldsa87.SeedSize]byte
	if _, err := io.ReadFull(rand, seed[:]); err != nil {
		return Keys{}, fmt.Errorf("make signing keys: %w", err)
	}
	_, lattice := mldsa87.NewKeyFromSeed(&seed)
	return Keys{classic, lattice}, nil
}

// Trust returns the public halves.
func (k Keys) Trust() Trust {
	return Trust{&k.ecdsa.PublicKey, k.mldsa.Public().(*mldsa87.PublicKey)}
}

// Signers returns what Seal signs with.
func (k Keys) Signers() []Signer { return []Signer{ecdsaSigner{k.ecdsa}, mldsaSigner{k.mldsa}} }

// Types of the PEM blocks.
const (
	publicBlock  = "PUBLIC KEY"
	privateBlock = "PRIVATE KEY"
)

// PEM returns the public keys as a file: two SubjectPublicKeyInfo in PEM, the
// one of ECDSA first.
func (t Trust) PEM() ([]byte, error) {
	classic, err := x509.MarshalPKIXPublicKey(t.ecdsa)
	if err != nil {
		return nil, fmt.Errorf("write public keys: %w", err)
	}
	lattice, err := asn1.Marshal(publicInfo{
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidMLDSA87},
		Key:       asn1.BitString{Bytes: t.mldsa.Bytes(), BitLength: 8 * mldsa87.PublicKeySize},
	})
	if err != nil {
		return nil, fmt.Errorf("write public keys: %w", err)
	}
	return blocks(publicBlock, classic, lattice), nil
}

// ParseTrust reads the file that Trust.PEM writes.
func ParseTrust(data []byte) (Trust, error) {
	classic, lattice, err := twoBlocks(data, publicBlock)
	if err != nil {
		return Trust{}, err
	}
	parsed, err := x509.ParsePKIXPublicKey(classic)
	if err != nil {
		return Trust{}, fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P384() {
		return Trust{}, fmt.Errorf("%w: its first key is not one of ECDSA on P-384", ErrKeyFile)
	}
	var info publicInfo
	if rest, err := asn1.Unmarshal(lattice, &info); err != nil || len(rest) != 0 || !info.Algorithm.Algorithm.Equal(oidMLDSA87) {
		return Trust{}, fmt.Errorf("%w: its second key is not one of ML-DSA-87", ErrKeyFile)
	}
	t := Trust{key, new(mldsa87.PublicKey)}
	if err := t.mldsa.UnmarshalBinary(info.Key.Bytes); err != nil {
		return Trust{}, fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	plain, err := t.PEM()
	return t, isPlain(data, plain, err)
}

// PEM returns the private keys as a file: two PrivateKeyInfo (PKCS #8) in PEM,
// the one of ECDSA first. Whoever has it signs as the maker.
func (k Keys) PEM() ([]byte, error) {
	classic, err := x509.MarshalPKCS8PrivateKey(k.ecdsa)
	if err != nil {
		return nil, fmt.Errorf("write signing keys: %w", err)
	}
	lattice, err := asn1.Marshal(privateInfo{
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidMLDSA87},
		Key:       append(slices.Clone(seedTag), k.mldsa.Seed()...),
	})
	if err != nil {
		return nil, fmt.Errorf("write signing keys: %w", err)
	}
	return blocks(privateBlock, classic, lattice), nil
}

// ParseKeys reads the file that Keys.PEM writes.
func ParseKeys(data []byte) (Keys, error) {
	classic, lattice, err := twoBlocks(data, privateBlock)
	if err != nil {
		return Keys{}, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(classic)
	if err != nil {
		return Keys{}, fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P384() {
		return Keys{}, fmt.Errorf("%w: its first key is not one of ECDSA on P-384", ErrKeyFile)
	}
	var info privateInfo
	if rest, err := asn1.Unmarshal(lattice, &info); err != nil || len(rest) != 0 || !info.Algorithm.Algorithm.Equal(oidMLDSA87) {
		return Keys{}, fmt.Errorf("%w: its second key is not one of ML-DSA-87", ErrKeyFile)
	}
	seed, ok := bytes.CutPrefix(info.Key, seedTag)
	if !ok || len(seed) != mldsa87.SeedSize {
		return Keys{}, fmt.Errorf("%w: its ML-DSA-87 key is not a seed of %d bytes", ErrKeyFile, mldsa87.SeedSize)
	}
	_, expanded := mldsa87.NewKeyFromSeed((*[mldsa87.SeedSize]byte)(seed))
	k := Keys{key, expanded}
	plain, err := k.PEM()
	return k, isPlain(data, plain, err)
}

// Fingerprint is the SHA-256 of the file of public keys in hexadecimal, for
// people who compare it by eye or by telephone.
func (t Trust) Fingerprint() (string, error) {
	file, err := t.PEM()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(file)
	return hex.EncodeToString(sum[:]), nil
}

// Shares tells whether two signers have a key in common: then they are not two.
func (t Trust) Shares(other Trust) bool {
	return t.ecdsa.Equal(other.ecdsa) || t.mldsa.Equal(other.mldsa)
}

// oidMLDSA87 is id-ml-dsa-87, and seedTag begins a private key that is its
// seed of 32 bytes, [0] IMPLICIT OCTET STRING (RFC 9881, sections 2 and 6).
var (
	oidMLDSA87 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, 19}
	seedTag    = []byte{0x80, mldsa87.SeedSize}
)

// publicInfo is SubjectPublicKeyInfo (RFC 5280, section 4.1).
type publicInfo struct {
	Algorithm pkix.AlgorithmIdentifier
	Key       asn1.BitString
}

// privateInfo is PrivateKeyInfo (RFC 5208, section 5) without attributes.
type privateInfo struct {
	Version   int
	Algorithm pkix.AlgorithmIdentifier
	Key       []byte
}

func blocks(kind string, ders ...[]byte) []byte {
	var out []byte
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
	}
	return out
}

func twoBlocks(data []byte, kind string) (first, second []byte, err error) {
	if len(data) > MaxKeyFile {
		return nil, nil, fmt.Errorf("%w: %d bytes: at most %d", ErrKeyFile, len(data), MaxKeyFile)
	}
	a, rest := pem.Decode(data)
	b, rest := pem.Decode(rest)
	if a == nil || b == nil || a.Type != kind || b.Type != kind || len(rest) != 0 {
		return nil, nil, fmt.Errorf("%w: need exactly two PEM blocks %s, of %s and %s", ErrKeyFile, kind, ECDSAP384, MLDSA87)
	}
	return a.Bytes, b.Bytes, nil
}

// isPlain refuses a file that says the same in other bytes.
func isPlain(data, plain []byte, err error) error {
	if err == nil && !bytes.Equal(data, plain) {
		err = fmt.Errorf("%w: it is not written in its one plain form", ErrKeyFile)
	}
	return err
}
