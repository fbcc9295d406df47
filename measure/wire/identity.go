package wire

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"waxseal/measure/wire/waxsealpb"
)

// maxPublic bounds a TPMT_PUBLIC, in bytes: one of RSA-4096 has about 600.
const maxPublic = 1024

// Identity is what a device shows of its keys at the doorstep. It is a claim.
type Identity struct {
	Card   Card
	EK     []byte // TPMT_PUBLIC
	IAK    []byte // TPMT_PUBLIC
	IDevID []byte // TPMT_PUBLIC
	SRK    []byte // TPMT_PUBLIC; empty where the TPM has none

	EKCerts    Chain // the TPM maker's, one for each EK: not a chain
	IAKCert    Chain
	IDevIDCert Chain

	Peer []*x509.Certificate // as in AttestAnswer
}

func (id Identity) check() error {
	for name, area := range map[string][]byte{"ek": id.EK, "iak": id.IAK, "idevid": id.IDevID, "srk": id.SRK} {
		if len(area) > maxPublic {
			return fmt.Errorf("%s of %d bytes: at most %d", name, len(area), maxPublic)
		}
	}
	return nil
}

func (id Identity) proto() *waxsealpb.IdentifyResponse {
	c := id.Card
	return &waxsealpb.IdentifyResponse{
		Card: &waxsealpb.DeliveryCard{
			Role: int32(c.Role), Serial: c.Serial, Slot: c.Slot,
			Manufacturer: c.Maker, PartNumber: c.Part, ChassisSerial: c.ChassisSerial,
		},
		Ek: id.EK, Iak: id.IAK, Idevid: id.IDevID, Srk: id.SRK,
		EkCert: id.EKCerts.der(), IakCert: id.IAKCert.der(), IdevidCert: id.IDevIDCert.der(),
	}
}

func identityOf(p *waxsealpb.IdentifyResponse) (Identity, error) {
	id := Identity{EK: p.GetEk(), IAK: p.GetIak(), IDevID: p.GetIdevid(), SRK: p.GetSrk()}
	if err := id.check(); err != nil {
		return Identity{}, err
	}
	c := p.GetCard()
	id.Card = Card{
		Role: Role(c.GetRole()), Serial: c.GetSerial(), Slot: c.GetSlot(),
		Maker: c.GetManufacturer(), Part: c.GetPartNumber(), ChassisSerial: c.GetChassisSerial(),
	}
	for _, f := range id.Card.texts() {
		if err := checkText(f.name, f.text); err != nil {
			return Identity{}, err
		}
	}
	if id.Card.Role < NoRole || id.Card.Role > Chassis {
		return Identity{}, fmt.Errorf("card.role %d is unknown", id.Card.Role)
	}
	var err error
	if id.EKCerts, err = chainOfDER("ek_cert", p.GetEkCert()); err != nil {
		return Identity{}, err
	}
	if id.IAKCert, err = chainOfDER("iak_cert", p.GetIakCert()); err != nil {
		return Identity{}, err
	}
	id.IDevIDCert, err = chainOfDER("idevid_cert", p.GetIdevidCert())
	return id, err
}

// der returns the certificates without their PEM armour.
func (c Chain) der() [][]byte {
	var out [][]byte
	for _, text := range c {
		if block, _ := pem.Decode([]byte(text)); block != nil {
			out = append(out, block.Bytes)
		}
	}
	return out
}

// chainOfDER bounds certificates and does not parse them: what is wrong with
// one is for the verifier to say.
func chainOfDER(name string, certs [][]byte) (Chain, error) {
	if len(certs) > MaxChain {
		return nil, fmt.Errorf("%s: %d certificates: at most %d", name, len(certs), MaxChain)
	}
	var chain Chain
	for i, der := range certs {
		if len(der) == 0 || len(der) > MaxCert {
			return nil, fmt.Errorf("%s: certificate %d has %d bytes: need 1 to %d", name, i, len(der), MaxCert)
		}
		chain = append(chain, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	}
	return chain, nil
}
