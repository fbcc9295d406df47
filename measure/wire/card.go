package wire

import (
	"fmt"

	cpb "github.com/openconfig/attestz/proto/common_definitions"
)

func (s Selection) proto() (*cpb.ControlCardSelection, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	switch {
	case s.Role != NoRole:
		return &cpb.ControlCardSelection{ControlCardId: &cpb.ControlCardSelection_Role{Role: cpb.ControlCardRole(s.Role)}}, nil
	case s.Serial != "":
		return &cpb.ControlCardSelection{ControlCardId: &cpb.ControlCardSelection_Serial{Serial: s.Serial}}, nil
	}
	return &cpb.ControlCardSelection{ControlCardId: &cpb.ControlCardSelection_Slot{Slot: s.Slot}}, nil
}

func selectionOf(p *cpb.ControlCardSelection) (Selection, error) {
	var s Selection
	switch id := p.GetControlCardId().(type) {
	case *cpb.ControlCardSelection_Role:
		s.Role = Role(id.Role)
	case *cpb.ControlCardSelection_Serial:
		s.Serial = id.Serial
	case *cpb.ControlCardSelection_Slot:
		s.Slot = id.Slot
	}
	return s, s.check()
}

func (s Selection) check() error {
	set := 0
	for _, is := range []bool{s.Role != NoRole, s.Serial != "", s.Slot != ""} {
		if is {
			set++
		}
	}
	if set != 1 {
		return fmt.Errorf("%w: control_card_selection names %d cards: need a role, a serial or a slot", ErrInvalid, set)
	}
	if s.Role < NoRole || s.Role > Chassis {
		return fmt.Errorf("%w: control_card_selection.role %d is unknown", ErrInvalid, s.Role)
	}
	if err := checkText("control_card_selection.serial", s.Serial); err != nil {
		return err
	}
	return checkText("control_card_selection.slot", s.Slot)
}

// Select tells whether the card is the one that s names: a fixed box is its
// own active card and its own chassis.
func (c Card) Select(s Selection) error {
	switch {
	case s.Role == Active || s.Role == Chassis:
		return nil
	case s.Role != NoRole:
		return fmt.Errorf("%w: control_card_selection.role: this device has no %s card", ErrInvalid, s.Role)
	case s.Serial != "" && (s.Serial == c.Serial || s.Serial == c.ChassisSerial):
		return nil
	case s.Serial != "":
		return fmt.Errorf("%w: control_card_selection.serial: this device has no card %q", ErrInvalid, s.Serial)
	case s.Slot != "" && s.Slot == c.Slot:
		return nil
	}
	return fmt.Errorf("%w: control_card_selection.slot: this device has no slot %q", ErrInvalid, s.Slot)
}

// Check tells whether all fields are filled with printable text.
func (c Card) Check() error {
	if c.Role <= NoRole || c.Role > Chassis {
		return fmt.Errorf("card role %d is unknown", c.Role)
	}
	for _, f := range c.texts() {
		if f.text == "" {
			return fmt.Errorf("card %s is empty", f.name)
		}
		if err := checkText(f.name, f.text); err != nil {
			return err
		}
	}
	return nil
}

func (c Card) texts() []struct{ name, text string } {
	return []struct{ name, text string }{
		{"control_card_serial", c.Serial},
		{"control_card_slot", c.Slot},
		{"chassis_manufacturer", c.Maker},
		{"chassis_part_number", c.Part},
		{"chassis_serial_number", c.ChassisSerial},
	}
}

func (c Card) proto() *cpb.ControlCardVendorId {
	return &cpb.ControlCardVendorId{
		ControlCardRole:     cpb.ControlCardRole(c.Role),
		ControlCardSerial:   c.Serial,
		ControlCardSlot:     c.Slot,
		ChassisManufacturer: c.Maker,
		ChassisPartNumber:   c.Part,
		ChassisSerialNumber: c.ChassisSerial,
	}
}

// cardOf reads the card of an answer. Other makers leave fields empty, so only
// the form of what is there is checked.
func cardOf(p *cpb.ControlCardVendorId) (Card, error) {
	c := Card{
		Role:          Role(p.GetControlCardRole()),
		Serial:        p.GetControlCardSerial(),
		Slot:          p.GetControlCardSlot(),
		Maker:         p.GetChassisManufacturer(),
		Part:          p.GetChassisPartNumber(),
		ChassisSerial: p.GetChassisSerialNumber(),
	}
	if c.Role < NoRole || c.Role > Chassis {
		return Card{}, fmt.Errorf("control_card_role %d is unknown", c.Role)
	}
	for _, f := range c.texts() {
		if err := checkText(f.name, f.text); err != nil {
			return Card{}, err
		}
	}
	return c, nil
}

// checkText accepts at most MaxText bytes of printable ASCII.
func checkText(name, s string) error {
	if len(s) > MaxText {
		return fmt.Errorf("%w: %s has %d bytes: at most %d", ErrInvalid, name, len(s), MaxText)
	}
	if clean(s, MaxText) != s {
		return fmt.Errorf("%w: %s is not printable ASCII", ErrInvalid, name)
	}
	return nil
}
