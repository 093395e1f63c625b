package text

// Colors.

// Style is a color, or a weight (ECMA-48, 8.3.117). The zero Style leaves a
// text as it is.
type Style string

// The styles.
const (
	Bold   Style = "1"
	Dim    Style = "2"
	Red    Style = "31"
	Green  Style = "32"
	Yellow Style = "33"
	Cyan   Style = "36"
)

// Painter paints texts. The zero Painter leaves them as they are.
type Painter struct {
	// Color says that the reader sees colors.
	Color bool
}

// Paint gives a text a style.
func (p Painter) Paint(s Style, text string) string {
	if !p.Color || s == "" || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}
