//! Small tables of results: aligned text for a terminal and Markdown for documents.

use std::fmt;

use unicode_width::UnicodeWidthStr;

/// On which side a column's cells line up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A heading and the alignment below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Heading, with the unit where there is one.
    pub title: String,
    /// Alignment of the heading and of the cells.
    pub align: Align,
}

impl Column {
    /// A column of text.
    pub fn text(title: &str) -> Self {
        Self { title: title.to_owned(), align: Align::Left }
    }

    /// A column of numbers.
    pub fn number(title: &str) -> Self {
        Self { title: title.to_owned(), align: Align::Right }
    }
}

/// A table of `N` columns; [`Display`](fmt::Display) gives aligned text without colour.
///
/// Widths are those of the characters on a terminal. Line ends and other control characters in a
/// cell become spaces, so that no cell can break the layout or command the terminal.
///
/// ```
/// use backslash_eval::table::{Column, Table, grouped};
///
/// let mut table = Table::new([Column::text("method"), Column::number("bytes")]);
/// table.push(["plain".into(), grouped(1_048_576)]);
/// table.push(["rate-trained".into(), grouped(262_144)]);
/// assert_eq!(
///     table.to_string(),
///     "\
/// method            bytes
/// ------------  ---------
/// plain         1,048,576
/// rate-trained    262,144
/// "
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table<const N: usize> {
    columns: [Column; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table without rows.
    pub fn new(columns: [Column; N]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row below the others.
    pub fn push(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    /// The columns, from left to right.
    pub fn columns(&self) -> &[Column; N] {
        &self.columns
    }

    /// The rows, from top to bottom.
    pub fn rows(&self) -> &[[String; N]] {
        &self.rows
    }

    /// The table in GitHub's Markdown, aligned in the source too; what Markdown would interpret is
    /// escaped.
    pub fn to_markdown(&self) -> String {
        let titles = self.columns.each_ref().map(|column| markdown_cell(&column.title));
        let rows: Vec<[String; N]> =
            self.rows.iter().map(|row| row.each_ref().map(|cell| markdown_cell(cell))).collect();
        let widths = self.widths(&titles, &rows).map(|width| width.max(3));
        let rule: [String; N] = std::array::from_fn(|index| match self.columns[index].align {
            Align::Left => "-".repeat(widths[index]),
            Align::Right => format!("{}:", "-".repeat(widths[index] - 1)),
        });
        let line =
            |cells: &[String; N]| format!("| {} |\n", self.aligned(cells, &widths).join(" | "));
        let body: String = rows.iter().map(line).collect();
        line(&titles) + &line(&rule) + &body
    }

    fn widths(&self, titles: &[String; N], rows: &[[String; N]]) -> [usize; N] {
        std::array::from_fn(|index| {
            let cells = rows.iter().map(|row| row[index].width());
            cells.chain([titles[index].width()]).max().unwrap_or(0)
        })
    }

    fn aligned(&self, cells: &[String; N], widths: &[usize; N]) -> [String; N] {
        std::array::from_fn(|index| {
            let cell = &cells[index];
            let padding = " ".repeat(widths[index].saturating_sub(cell.width()));
            match self.columns[index].align {
                Align::Left => format!("{cell}{padding}"),
                Align::Right => format!("{padding}{cell}"),
            }
        })
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles = self.columns.each_ref().map(|column| plain_cell(&column.title));
        let rows: Vec<[String; N]> =
            self.rows.iter().map(|row| row.each_ref().map(|cell| plain_cell(cell))).collect();
        let widths = self.widths(&titles, &rows);
        let rule = widths.map(|width| "-".repeat(width));
        for cells in [&titles, &rule].into_iter().chain(&rows) {
            writeln!(formatter, "{}", self.aligned(cells, &widths).join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// `count` with a comma between groups of three digits.
///
/// ```
/// assert_eq!(backslash_eval::table::grouped(17_059_912), "17,059,912");
/// ```
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `value` with a fixed number of decimals, "∞" or "−∞" for an infinity and "n/a" for what is not a
/// number.
///
/// ```
/// use backslash_eval::table::fixed;
///
/// assert_eq!(fixed(2.30001, 4), "2.3000");
/// assert_eq!(fixed(f64::NAN, 4), "n/a");
/// ```
pub fn fixed(value: f64, decimals: usize) -> String {
    match value {
        f64::INFINITY => "∞".to_owned(),
        f64::NEG_INFINITY => "−∞".to_owned(),
        value if value.is_nan() => "n/a".to_owned(),
        // Beyond these bounds a fixed form has hundreds of digits and none of them says anything.
        value if value.abs() >= 1e12 => format!("{value:.decimals$e}"),
        value => format!("{value:.decimals$}"),
    }
}

fn plain_cell(cell: &str) -> String {
    cell.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

fn markdown_cell(cell: &str) -> String {
    let mut escaped = String::with_capacity(cell.len());
    for character in plain_cell(cell).chars() {
        match character {
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '~' => escaped.extend(['\\', character]),
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> Table<3> {
        let mut table = Table::new([
            Column::text("method"),
            Column::number("bytes"),
            Column::number("bits per byte"),
        ]);
        table.push([name.to_owned(), grouped(999), fixed(2.5, 3)]);
        table.push(["plain".to_owned(), grouped(1_000), fixed(10.25, 3)]);
        table
    }

    #[test]
    fn columns_line_up_at_the_width_on_screen() {
        // Wide characters take two places, a combining accent none.
        let text = table("字典 e\u{301}").to_string();
        let widths: Vec<usize> = text.lines().map(UnicodeWidthStr::width).collect();
        assert_eq!(widths, [28; 4]);
        assert!(text.contains("plain   1,000         10.250"), "{text}");
    }

    #[test]
    fn control_characters_cannot_break_the_layout() {
        let text = table("a\nb\t\u{1b}[31mred").to_string();
        assert_eq!(text.lines().count(), 4);
        assert!(text.contains("a b  [31mred"), "{text:?}");
    }

    #[test]
    fn markdown_is_aligned_and_escaped() {
        let markdown = table("a|b_c <i>").to_markdown();
        let lines: Vec<&str> = markdown.lines().collect();
        assert_eq!(lines[1], "| -------------- | ----: | ------------: |");
        assert_eq!(lines[2], r"| a\|b\_c &lt;i> |   999 |         2.500 |");
        assert_eq!(lines[3], "| plain          | 1,000 |        10.250 |");
    }

    #[test]
    fn a_table_without_rows_is_a_heading() {
        let empty = Table::new([Column::text("a"), Column::number("b")]);
        assert_eq!(empty.to_string(), "a  b\n-  -\n");
        assert_eq!(empty.to_markdown(), "| a   |   b |\n| --- | --: |\n");
    }

    #[test]
    fn numbers_read_well_at_every_size() {
        assert_eq!(
            [0, 12, 123, 1_234, 123_456, 1_234_567].map(grouped).join(" "),
            "0 12 123 1,234 123,456 1,234,567"
        );
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(fixed(f64::INFINITY, 2), "∞");
        assert_eq!(fixed(f64::MAX, 2), "1.80e308");
        assert_eq!(fixed(-0.126, 2), "-0.13");
    }
}
