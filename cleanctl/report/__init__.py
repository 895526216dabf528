"""The report: what a store and its runs say of the labels, as one HTML file that opens without a server.

In the order of reading: write.py, the verb; snapshot.py, what is read of the store at one moment; evidence.py, rules
and their cuts in words; mixtures.py, confusion.py, gain.py, galleries.py, quality.py, runs.py, changes.py, each a pure
function from the snapshot's arrays to a small record; thumbnails.py, the images; sections/, records to HTML; svg.py
and text.py, charts and escaped text. page/ is what happens in the browser.
"""
