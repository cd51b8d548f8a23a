//! Tables that read as well in a terminal as in a document.

/// A table in Markdown with its columns lined up: the first to the left, the others to the right.
pub struct Grid(Vec<Vec<String>>);

impl Grid {
    pub fn new(first: &str, others: impl IntoIterator<Item = String>) -> Self {
        Self(vec![std::iter::once(first.to_owned()).chain(others).collect()])
    }

    pub fn push(&mut self, first: String, others: impl IntoIterator<Item = String>) {
        self.0.push(std::iter::once(first).chain(others).collect());
    }

    pub fn text(&self) -> String {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.0.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (index, row) in self.0.iter().enumerate() {
            for (column, width) in widths.iter().enumerate() {
                let cell = row.get(column).map_or("", String::as_str);
                let space = " ".repeat(width - cell.chars().count());
                match column {
                    0 => text.push_str(&format!("| {cell}{space} |")),
                    _ => text.push_str(&format!(" {space}{cell} |")),
                }
            }
            text.push('\n');
            if index == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let rule = "-".repeat(*width);
                    text.push_str(&match column {
                        0 => format!("| {rule} |"),
                        _ => format!(" {}: |", &rule[..width.saturating_sub(1)]),
                    });
                }
                text.push('\n');
            }
        }
        text
    }
}
